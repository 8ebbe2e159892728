-- Requests of many users over keep-alive connections; one JSON line with the outcome at the end.
-- Environment: COMPARE_TOKENS (file, one token a line), COMPARE_PATH, COMPARE_OUT.
local requests, count = {}, 0

function init(args)
  math.randomseed(42)
  local path = os.getenv("COMPARE_PATH")
  for line in io.lines(os.getenv("COMPARE_TOKENS")) do
    count = count + 1
    requests[count] = wrk.format("GET", path, {
      ["Host"] = "portal.example", ["Authorization"] = "Bearer " .. line,
      ["Accept"] = "application/json", ["User-Agent"] = "compare/1.0" })
  end
end

function request() return requests[math.random(count)] end

function done(summary, latency, _)
  local e = summary.errors
  local out = io.open(os.getenv("COMPARE_OUT"), "w")
  out:write(string.format('{"requests":%d,"duration_us":%d,"p50_us":%d,"p99_us":%d,"refused":%d,"failed":%d}\n', summary.requests,
    summary.duration, latency:percentile(50), latency:percentile(99), e.status, e.connect + e.read + e.write + e.timeout))
  out:close()
end

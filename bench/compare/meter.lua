-- What a careful administrator would write for nginx with Lua and Redis: HS256 tokens verified by OpenSSL and remembered,
-- one script a call that counts a rolling window in 288 cells. Of the comparison only; see peers.py.
local ffi = require "ffi"
local base64 = require "ngx.base64"
local lrucache = require "resty.lrucache"
local redis = require "nginx.redis"

ffi.cdef [[
unsigned char *HMAC(const void *evp_md, const void *key, int key_len, const unsigned char *d, size_t n,
                    unsigned char *md, unsigned int *md_len);
const void *EVP_sha256(void);
int CRYPTO_memcmp(const void *a, const void *b, size_t len);
]]

-- KEYS: the user's hash of cells. ARGV: window in seconds, limit. Returns 1 when the call fits.
local COUNT = [[
local width = ARGV[1] / 288
local cell = math.floor(redis.call('TIME')[1] / width)
local state = redis.call('HMGET', KEYS[1], 'sum', 'newest')
local sum, newest = tonumber(state[1] or 0), tonumber(state[2] or cell)
for old = math.max(newest, cell - 288) + 1, cell do
  local used = redis.call('HGET', KEYS[1], old % 288)
  if used then
    sum = sum - used
    redis.call('HDEL', KEYS[1], old % 288)
  end
end
if sum >= tonumber(ARGV[2]) then return 0 end
redis.call('HINCRBY', KEYS[1], cell % 288, 1)
redis.call('HSET', KEYS[1], 'sum', sum + 1, 'newest', cell)
redis.call('EXPIRE', KEYS[1], ARGV[1])
return 1
]]

local M = {}
local settings, script_id
local verified = lrucache.new(10000)  -- token -> {subject, expiry}
local digest, digest_size = ffi.new("unsigned char[32]"), ffi.new("unsigned int[1]")

function M.configure(values)
  settings = values
end

-- {subject, expiry} of a token with a good signature, else nil.
local function verify(token)
  local head, claims, signature = token:match("^([%w_-]+)%.([%w_-]+)%.([%w_-]+)$")
  if not head then return nil end
  local algorithm = base64.decode_base64url(head)
  if not algorithm or not algorithm:find('"alg":"HS256"', 1, true) then return nil end
  local mac = base64.decode_base64url(signature)
  if not mac or #mac ~= 32 then return nil end
  ffi.C.HMAC(ffi.C.EVP_sha256(), settings.secret, #settings.secret, token, #head + 1 + #claims, digest, digest_size)
  if ffi.C.CRYPTO_memcmp(digest, mac, 32) ~= 0 then return nil end
  local text = base64.decode_base64url(claims) or ""
  local subject, expiry = text:match('"sub":"([^"]+)"'), tonumber(text:match('"exp":(%d+)'))
  return subject and expiry and { subject, expiry } or nil
end

local function unavailable(what, err)
  ngx.log(ngx.ERR, what, ": ", err)
  return ngx.exit(503)
end

function M.access()
  local token = (ngx.var.http_authorization or ""):match("^Bearer (.+)$")
  if not token then return ngx.exit(401) end
  local identity = verified:get(token)
  if not identity then
    identity = verify(token)
    if not identity then return ngx.exit(401) end
    verified:set(token, identity, 300)
  end
  if identity[2] < ngx.time() then return ngx.exit(401) end

  local store = redis:new()
  store:set_timeout(1000)
  local ok, err = store:connect("127.0.0.1", settings.redis_port)
  if not ok then return unavailable("connect", err) end
  if not script_id then
    script_id, err = store:script("load", COUNT)
    if not script_id then return unavailable("script", err) end
  end
  local fits
  fits, err = store:evalsha(script_id, 1, "calls:" .. identity[1], settings.window, settings.limit)
  if not fits then return unavailable("evalsha", err) end
  store:set_keepalive(60000, 256)
  if fits == 0 then
    ngx.header["Retry-After"] = "60"
    return ngx.exit(429)
  end
end

return M

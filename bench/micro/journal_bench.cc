// What a call costs in the journal: a begin and an end as a worker writes them, into mapped memory, no system call an entry.
// `bytes_a_call` is what a realistic call takes on disk. The segments are on the disk that TMPDIR names.
#include <benchmark/benchmark.h>

#include <cstdlib>
#include <filesystem>

#include "metering/journal/call_journal.h"

namespace tollgate::journal {
namespace {

// A journal that goes away. Old segments are deleted by the cap, so that a long run does not fill the disk.
class Place {
 public:
  Place() {
    const char* base = std::getenv("TMPDIR");
    path_ = std::string(base != nullptr && *base != '\0' ? base : "/tmp") + "/tollgate-bench-XXXXXX";
    if (::mkdtemp(path_.data()) == nullptr) std::exit(1);
    JournalOptions options;
    options.directory = path_ + "/journal";
    options.cells = 64;
    options.max_bytes = 512ULL << 20;
    options.commit_interval = Milliseconds(200);
    auto opened = Journal::open(options);
    if (!opened) {
      std::fprintf(stderr, "%s\n", opened.error().message.c_str());
      std::exit(1);
    }
    journal_ = std::move(*opened);
  }
  ~Place() {
    journal_.reset();
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  Journal& journal() { return *journal_; }
  std::string directory() const { return path_ + "/journal"; }

 private:
  std::string path_;
  std::unique_ptr<Journal> journal_;
};

usage::Fact a_fact() {
  static constexpr usage::CountedOperation kOperation{"Case", "read", "cases",
                                                      "Creatio customer portal cloud"};
  usage::Fact fact;
  fact.time = UnixTime(Milliseconds(1'795'000'000'123));
  fact.request_id = "0b7c4f0e-8b3c-4e0b-9d8e-6f1f9a6f2f11";
  fact.client_address = "203.0.113.77";
  fact.user = "ann.miller@acme.example";
  fact.tenant = "acme";
  fact.organization = "acme-sales";
  fact.method = "GET";
  fact.path = "/0/odata/Case(9b0d7c4e-6a7b-4c4c-8d7c-0f6b9a8e7d6c)";
  fact.kind = "read";
  fact.operations = {&kOperation, 1};
  fact.units = 1;
  fact.status = 200;
  fact.bytes_out = 4'321;
  fact.total = std::chrono::microseconds(15'432);
  fact.upstream = std::chrono::microseconds(15'100);
  fact.upstream_server = "10.1.2.3:8080";
  fact.attempts = 1;
  return fact;
}

void BM_JournalCall(benchmark::State& state) {
  Place place;
  StreamCallJournal calls(place.journal(), 0);
  const usage::Fact fact = a_fact();
  const usage::ChargedAccount account{"q:{p017}:acme:u:ann.miller@acme.example", "daily", 1, 29'916'666};
  std::uint64_t written = 0;
  for (auto _ : state) {
    const usage::CallHandle handle = calls.begin(fact, {&account, 1});
    if (handle.call == 0) state.SkipWithError("the journal took no call");
    calls.charged(handle);
    calls.sent(handle);
    calls.record(handle, fact, {&account, 1}, false);
    ++written;
  }
  std::uint64_t bytes = 0, entries = 0;
  [[maybe_unused]] const auto read = Reader(place.directory())
                                         .read("0", written * 2 > 1'000 ? written * 2 - 1'000 : 0,
                                               [&](const Reader::Position&, const usage::EntryView& entry) {
                                                 bytes += entry.size;
                                                 ++entries;
                                                 return true;
                                               });
  if (entries == 0) return state.SkipWithError("nothing was written");
  state.counters["bytes_a_call"] = 2.0 * static_cast<double>(bytes) / static_cast<double>(entries);
}
BENCHMARK(BM_JournalCall);

void BM_JournalOp(benchmark::State& state) {
  Place place;
  quota::Op op;
  op.incarnation = place.journal().incarnation();
  op.partition = 17;
  op.subject_key = "q:{p017}:acme:u:ann.miller@acme.example";
  op.accounts.push_back({"daily", Milliseconds(86'400'000), Milliseconds(60'000), 1'000, {{29'916'666, 12}}});
  for (auto _ : state) {
    ++op.seq;
    if (!place.journal().op_log(0).append(op)) state.SkipWithError("the journal took no op");
  }
}
BENCHMARK(BM_JournalOp);

void BM_Crc32c(benchmark::State& state) {
  const std::string bytes(static_cast<std::size_t>(state.range(0)), 'x');
  for (auto _ : state) benchmark::DoNotOptimize(usage::crc32c(bytes));
  state.SetBytesProcessed(state.iterations() * state.range(0));
}
BENCHMARK(BM_Crc32c)->Arg(256)->Arg(4'096);

}  // namespace
}  // namespace tollgate::journal

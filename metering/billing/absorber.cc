#include "metering/billing/absorber.h"

#include "metering/base/check.h"

namespace tollgate::billing {
namespace {

// The proxy's end waits no longer than this for another process that writes the book.
constexpr Milliseconds kBusyTimeout{2'000};

}  // namespace

Absorber::Absorber(AbsorberOptions options, const usage::EntrySource& source)
    : options_(std::move(options)), source_(source) {}

Absorber::~Absorber() {
  stop();
}

void Absorber::start() {
  CHECK(!thread_.joinable(), "started twice");
  thread_ = std::thread([this] { run(); });
}

void Absorber::wake() {
  {
    std::lock_guard lock(mutex_);
    woken_ = true;
  }
  changed_.notify_all();
}

void Absorber::stop() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

Absorber::Status Absorber::status() const {
  std::lock_guard lock(mutex_);
  return status_;
}

void Absorber::run() {
  for (bool last = false; !last;) {
    {
      std::unique_lock lock(mutex_);
      changed_.wait_for(lock, options_.interval, [&] { return stopping_ || woken_; });
      woken_ = false;
      last = stopping_;
    }
    turn();
  }
  book_.reset();
}

void Absorber::turn() {
  Result<void> done = absorb();
  std::string trouble = done ? "" : done.error().message;
  bool news = false;
  {
    std::lock_guard lock(mutex_);
    ++status_.turns;
    if (!done) ++status_.failures;
    news = trouble != status_.trouble;
    status_.trouble = trouble;
  }
  if (news && options_.log)
    options_.log(done ? "info" : "error", done ? "usage: the book is up to date again"
                                               : "usage: the journal is not absorbed: " + trouble);
  if (options_.on_turn) options_.on_turn();
}

Result<void> Absorber::absorb() {
  if (book_ == nullptr) {
    auto book = Book::open(options_.book, kBusyTimeout);
    if (!book) return std::unexpected(book.error());
    book_ = std::move(*book);
  }
  auto entries = book_->absorb(source_, {}, options_.make_durable);
  {
    std::lock_guard lock(mutex_);
    status_.entries += entries.value_or(0);
  }
  // Also after damage: what could be read is in the rows.
  if (options_.release) {
    auto incarnation = source_.incarnation();
    auto marks = book_->watermarks();
    if (incarnation && marks)
      for (const Watermark& mark : *marks)
        if (mark.journal == journal_name(*incarnation)) options_.release(mark.stream, mark.entry + 1);
  }
  if (!entries) return std::unexpected(entries.error());
  return {};
}

}  // namespace tollgate::billing

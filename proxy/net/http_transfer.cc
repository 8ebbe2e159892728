#include "proxy/net/http_transfer.h"

#include <curl/curl.h>
#include <fmt/format.h>
#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <utility>

#include "metering/base/check.h"

namespace tollgate::net {
namespace {

template <class Value>
void set(CURL* curl, CURLoption option, Value value) {
  CHECK(curl_easy_setopt(curl, option, value) == CURLE_OK, "libcurl lacks an option that transfers need");
}

void make_ready() {
  static const CURLcode ready = curl_global_init(CURL_GLOBAL_DEFAULT);
  CHECK(ready == CURLE_OK, "libcurl cannot be initialised");
}

int on_progress(void* stop, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
  return static_cast<const std::atomic<bool>*>(stop)->load() ? 1 : 0;
}

}  // namespace

HttpTransfer::HttpTransfer() {
  make_ready();
  curl_ = curl_easy_init();
  CHECK(curl_ != nullptr, "out of memory");
}

HttpTransfer::~HttpTransfer() {
  if (multi_ != nullptr) curl_multi_remove_handle(multi_, curl_);
  curl_easy_cleanup(curl_);
  curl_slist_free_all(fields_);
}

std::size_t HttpTransfer::take_body(char* data, std::size_t size, std::size_t count, void* self) {
  auto& transfer = *static_cast<HttpTransfer*>(self);
  if (transfer.reply_.body.size() + size * count > transfer.request_.reply_max) {
    transfer.too_large_ = true;
    return 0;  // curl ends the transfer
  }
  transfer.reply_.body.append(data, size * count);
  return size * count;
}

void HttpTransfer::set_request() {
  curl_slist_free_all(std::exchange(fields_, nullptr));
  for (const std::string& line : request_.fields) fields_ = curl_slist_append(fields_, line.c_str());
  fields_ = curl_slist_append(fields_, "Expect:");  // a body is not held back for a 100
  set(curl_, CURLOPT_URL, request_.url.c_str());
  set(curl_, CURLOPT_PATH_AS_IS, 1L);
  set(curl_, CURLOPT_HTTPHEADER, fields_);
  set(curl_, CURLOPT_USERAGENT, "tollgate");
  if (request_.compressed) set(curl_, CURLOPT_ACCEPT_ENCODING, "");
  if (request_.body) {
    set(curl_, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(request_.body->size()));
    set(curl_, CURLOPT_POSTFIELDS, request_.body->c_str());
  }
  if (!request_.method.empty()) set(curl_, CURLOPT_CUSTOMREQUEST, request_.method.c_str());
}

void HttpTransfer::set_bounds() {
  set(curl_, CURLOPT_PROTOCOLS_STR, "http,https");
  set(curl_, CURLOPT_FOLLOWLOCATION, 0L);
  set(curl_, CURLOPT_NOSIGNAL, 1L);
  set(curl_, CURLOPT_QUICK_EXIT, 1L);  // stopping does not wait for a name look-up that hangs
  set(curl_, CURLOPT_NOPROXY, request_.proxies ? "localhost,127.0.0.1,::1" : "*");
  set(curl_, CURLOPT_SSL_VERIFYPEER, 1L);
  set(curl_, CURLOPT_SSL_VERIFYHOST, 2L);
  set(curl_, CURLOPT_SSLVERSION, static_cast<long>(CURL_SSLVERSION_TLSv1_2));
  if (!request_.ca_file.empty()) {
    set(curl_, CURLOPT_CAINFO, request_.ca_file.c_str());
    set(curl_, CURLOPT_CAPATH, static_cast<const char*>(nullptr));
  }
  set(curl_, CURLOPT_TIMEOUT_MS, static_cast<long>(std::max<std::int64_t>(1, request_.timeout.count())));
  if (request_.connect_timeout > Milliseconds(0))
    set(curl_, CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(request_.connect_timeout.count()));
  set(curl_, CURLOPT_MAXFILESIZE_LARGE, static_cast<curl_off_t>(request_.reply_max));
  if (request_.stop != nullptr) {
    set(curl_, CURLOPT_NOPROGRESS, 0L);
    set(curl_, CURLOPT_XFERINFOFUNCTION, &on_progress);
    set(curl_, CURLOPT_XFERINFODATA, static_cast<const void*>(request_.stop));
  }
}

void HttpTransfer::prepare(HttpRequest request) {
  curl_easy_reset(curl_);
  request_ = std::move(request);
  reply_ = {};
  too_large_ = false;
  set_request();
  set_bounds();
  static_assert(sizeof error_ >= CURL_ERROR_SIZE);
  error_.fill('\0');
  set(curl_, CURLOPT_ERRORBUFFER, error_.data());
  set(curl_, CURLOPT_WRITEFUNCTION, &take_body);
  set(curl_, CURLOPT_WRITEDATA, static_cast<void*>(this));
  set(curl_, CURLOPT_PRIVATE, static_cast<void*>(this));
}

HttpOutcome HttpTransfer::outcome(int code) {
  if (too_large_ || code == CURLE_FILESIZE_EXCEEDED)
    return std::unexpected(TransferFailure{
        .too_large = true, .text = fmt::format("the reply is larger than {} bytes", request_.reply_max)});
  if (code != CURLE_OK)
    return std::unexpected(TransferFailure{
        .text = error_[0] != '\0' ? error_.data() : curl_easy_strerror(static_cast<CURLcode>(code))});
  long status = 0;
  curl_easy_getinfo(curl_, CURLINFO_RESPONSE_CODE, &status);
  reply_.status = static_cast<int>(status);
  return std::move(reply_);
}

HttpOutcome HttpTransfer::perform(HttpRequest request) {
  prepare(std::move(request));
  return outcome(curl_easy_perform(curl_));
}

void HttpTransfer::keep_cookies() {
  // Any cookie makes libcurl keep cookies; the usual empty CURLOPT_COOKIEFILE leaks at a reset (7.88).
  set(curl_, CURLOPT_COOKIELIST, "Set-Cookie: none=; max-age=0; domain=localhost; path=/");
}

void HttpTransfer::forget_cookies() {
  set(curl_, CURLOPT_COOKIELIST, "ALL");
}

std::string HttpTransfer::cookie(std::string_view name) const {
  curl_slist* cookies = nullptr;
  curl_easy_getinfo(curl_, CURLINFO_COOKIELIST, &cookies);
  std::string found;
  for (const curl_slist* each = cookies; each != nullptr; each = each->next) {
    // Netscape's format: seven cells, of which the last two are name and value.
    const std::string_view line = each->data;
    const std::size_t value = line.rfind('\t');
    const std::size_t before = value == line.npos ? value : line.rfind('\t', value - 1);
    if (before != line.npos && line.substr(before + 1, value - before - 1) == name)
      found = line.substr(value + 1);
  }
  curl_slist_free_all(cookies);
  return found;
}

HttpTransfers::HttpTransfers(long connections_max) {
  make_ready();
  multi_ = curl_multi_init();
  CHECK(multi_ != nullptr, "out of memory");
  if (connections_max == 0) return;
  curl_multi_setopt(multi_, CURLMOPT_MAX_TOTAL_CONNECTIONS, connections_max);
  curl_multi_setopt(multi_, CURLMOPT_MAXCONNECTS, connections_max);
}

HttpTransfers::~HttpTransfers() {
  curl_multi_cleanup(multi_);
}

void HttpTransfers::begin(HttpTransfer& transfer, HttpRequest request, Ended ended) {
  CHECK(transfer.multi_ == nullptr, "a transfer has one request at a time");
  transfer.prepare(std::move(request));
  transfer.ended_ = std::move(ended);
  CHECK(curl_multi_add_handle(multi_, transfer.curl_) == CURLM_OK, "libcurl takes no transfer");
  transfer.multi_ = multi_;
}

void HttpTransfers::step() {
  int running = 0, left = 0;
  curl_multi_perform(multi_, &running);
  while (const CURLMsg* message = curl_multi_info_read(multi_, &left)) {
    if (message->msg != CURLMSG_DONE) continue;
    const CURLcode code = message->data.result;
    void* user = nullptr;
    curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &user);
    auto& transfer = *static_cast<HttpTransfer*>(user);
    curl_multi_remove_handle(multi_, transfer.curl_);
    transfer.multi_ = nullptr;
    const Ended ended = std::exchange(transfer.ended_, nullptr);
    ended(transfer.outcome(code));
  }
}

void HttpTransfers::wait(Milliseconds longest) {
  const auto bounded = std::clamp<std::int64_t>(longest.count(), 0, 60'000);
  if (bounded > 0) curl_multi_poll(multi_, nullptr, 0, static_cast<int>(bounded), nullptr);
}

void HttpTransfers::wake() {
  curl_multi_wakeup(multi_);
}

void block_signals() {
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, nullptr);
}

}  // namespace tollgate::net

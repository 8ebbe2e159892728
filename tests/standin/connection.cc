#include "tests/standin/connection.h"

#include <fmt/format.h>
#include <openssl/evp.h>

#include <algorithm>
#include <boost/asio/write.hpp>
#include <boost/beast/http.hpp>
#include <boost/beast/websocket.hpp>
#include <chrono>
#include <thread>

#include "metering/base/ascii.h"

namespace tollgate::standin {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using Error = boost::system::error_code;

class Sha256 {
 public:
  Sha256() { EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr); }
  void add(const void* bytes, std::size_t size) { EVP_DigestUpdate(context_.get(), bytes, size); }
  std::string hex() {
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned size = 0;
    EVP_DigestFinal_ex(context_.get(), digest, &size);
    std::string out;
    for (unsigned i = 0; i < size; ++i) out += fmt::format("{:02x}", digest[i]);
    return out;
  }

 private:
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context_{EVP_MD_CTX_new(), &EVP_MD_CTX_free};
};

class Connection {
 public:
  Connection(Stream stream, Crm& crm, Control& control)
      : stream_(std::move(stream)), crm_(crm), control_(control) {}

  void run() {
    while (serve_one()) {
    }
    stream_.shut_down();
  }

 private:
  using Parser = http::request_parser<http::buffer_body>;

  // False: the connection is over.
  bool serve_one();
  bool read_request(Request& request, bool& keep_alive);
  // The head exactly as it arrived; empty at the end of the stream.
  std::string peek_head();
  bool read_body(Parser& parser, Request& request);
  bool administer(const Request& request, Reply& reply);
  bool misbehave(const std::string& fault);
  bool send(const Request& request, const Reply& reply, bool keep_alive);
  bool send_filler(std::uint64_t size, bool chunked);
  void echo_websocket(const Request& request);
  bool write(std::string_view bytes) {
    Error error;
    asio::write(stream_, asio::buffer(bytes.data(), bytes.size()), error);
    return !error;
  }

  Stream stream_;
  Crm& crm_;
  Control& control_;
  beast::flat_buffer buffer_;
};

HeaderList split_head(std::string_view head) {
  HeaderList headers;
  std::size_t at = head.find("\r\n");
  while (at != std::string_view::npos && at + 2 < head.size()) {
    const std::size_t start = at + 2;
    at = head.find("\r\n", start);
    const std::string_view line = head.substr(start, at - start);
    const std::size_t colon = line.find(':');
    if (colon == std::string_view::npos) continue;
    headers.emplace_back(std::string(line.substr(0, colon)), std::string(trim(line.substr(colon + 1))));
  }
  return headers;
}

std::string Connection::peek_head() {
  constexpr std::size_t kHeadMax = 256 * 1024;
  for (;;) {
    const std::string_view have(static_cast<const char*>(buffer_.data().data()), buffer_.size());
    const std::size_t end = have.find("\r\n\r\n");
    if (end != std::string_view::npos) return std::string(have.substr(0, end + 2));
    if (have.size() > kHeadMax) return {};
    Error error;
    const std::size_t n = stream_.read_some(buffer_.prepare(16 * 1024), error);
    if (error || n == 0) return {};
    buffer_.commit(n);
  }
}

bool Connection::read_body(Parser& parser, Request& request) {
  Sha256 sha;
  std::array<char, 64 * 1024> block;
  auto on_chunk = [&](std::uint64_t size, beast::string_view, Error&) { request.chunks += size > 0 ? 1 : 0; };
  parser.on_chunk_header(on_chunk);
  while (!parser.is_done()) {
    parser.get().body().data = block.data();
    parser.get().body().size = block.size();
    Error error;
    http::read(stream_, buffer_, parser, error);
    if (error && error != http::error::need_buffer) return false;
    const std::size_t n = block.size() - parser.get().body().size;
    sha.add(block.data(), n);
    request.body_length += n;
    request.body.append(block.data(), std::min(n, kBodyKept - std::min(kBodyKept, request.body.size())));
  }
  request.body_sha256 = sha.hex();
  return true;
}

bool Connection::read_request(Request& request, bool& keep_alive) {
  const std::string head = peek_head();
  if (head.empty()) return false;
  request.headers = split_head(head);
  Parser parser;
  parser.body_limit(boost::none);
  parser.header_limit(256 * 1024);
  Error error;
  http::read_header(stream_, buffer_, parser, error);
  if (error) {
    write("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\nX-Standin-Error: " +
          error.message() + "\r\n\r\n");
    return false;
  }
  const auto& message = parser.get();
  request.method = std::string(message.method_string());
  request.target = std::string(message.target());
  request.version = message.version();
  const std::string_view target = request.target;
  const std::size_t question = std::min(target.find('?'), target.size());
  request.path = percent_decode(target.substr(0, question));
  request.query = question < target.size() ? std::string(target.substr(question + 1)) : std::string();
  keep_alive = message.keep_alive();
  if (const std::string* expect = request.find("Expect");
      expect != nullptr && equals_ignore_case(*expect, "100-continue")) {
    if (request.find("X-Standin-Refuse-Continue") != nullptr)
      return send(request, text_reply(417, "no\n"), false) && false;
    write("HTTP/1.1 100 Continue\r\n\r\n");
  }
  if (!read_body(parser, request)) return false;
  // Beast adds trailer fields to the others: what was not in the head came after the body.
  HeaderList remaining = request.headers;
  for (const auto& field : parser.get()) {
    const std::pair<std::string, std::string> entry(field.name_string(), field.value());
    const auto same = std::find(remaining.begin(), remaining.end(), entry);
    if (same == remaining.end())
      request.trailers.push_back(entry);
    else
      remaining.erase(same);
  }
  return true;
}

bool Connection::administer(const Request& request, Reply& reply) {
  if (!request.path.starts_with("/_standin/")) return false;
  if (request.path == "/_standin/counts") {
    reply = json_reply(200, control_.counts_json());
  } else if (request.path == "/_standin/reset") {
    control_.reset_counts();
    reply = text_reply(204, "");
  } else if (request.path == "/_standin/expire") {
    crm_.expire();
    reply = text_reply(204, "");
  } else if (request.path == "/_standin/settings" && request.method == "POST") {
    reply = control_.set(request.body) ? text_reply(204, "") : text_reply(400, "unknown setting\n");
  } else {
    reply = text_reply(404, "no such page\n");
  }
  return true;
}

bool Connection::serve_one() {
  Request request;
  bool keep_alive = true;
  if (!read_request(request, keep_alive)) return false;
  Reply reply;
  if (administer(request, reply)) return send(request, reply, keep_alive) && keep_alive;

  const std::string* upgrade = request.find("Upgrade");
  if (upgrade != nullptr && equals_ignore_case(*upgrade, "websocket")) {
    control_.count(request.method, {"WEBSOCKET " + request.path}, request.target);
    echo_websocket(request);
    return false;
  }
  const Behaviour behaviour = control_.behaviour();
  std::uint32_t latency_ms = behaviour.latency_ms;
  std::string fault = !behaviour.fault.empty() && control_.fault_is_due() ? behaviour.fault : std::string();
  if (const std::string* own = request.find("X-Standin-Latency-Ms"))
    latency_ms = static_cast<std::uint32_t>(parse_decimal(*own).value_or(0));
  if (const std::string* own = request.find("X-Standin-Fault")) fault = *own;

  if (!control_.enter()) return send(request, text_reply(503, "too busy\n"), keep_alive) && keep_alive;
  reply = crm_.answer(request);
  control_.count(request.method, reply.touched, request.target);
  if (latency_ms > 0) std::this_thread::sleep_for(std::chrono::milliseconds(latency_ms));
  const bool go_on = fault.empty() ? send(request, reply, keep_alive) && keep_alive : misbehave(fault);
  control_.leave();
  return go_on;
}

bool Connection::misbehave(const std::string& fault) {
  const std::string some(100, 'x');
  if (fault == "reset_before_reply") {
    Error ignored;
    stream_.socket().set_option(asio::socket_base::linger(true, 0), ignored);
    stream_.socket().close(ignored);
  } else if (fault == "close_mid_head") {
    write("HTTP/1.1 200 OK\r\nContent-Ty");
  } else if (fault == "close_mid_body") {
    write("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + some);
  } else if (fault == "close_mid_chunk") {
    write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\n" + some);
  } else if (fault == "garbage") {
    write("\x16\x03\x01 this is not HTTP at all\r\n\r\n");
  } else if (fault == "two_lengths") {
    write("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!");
  } else if (fault == "length_and_chunked") {
    write(
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
  } else if (fault == "bare_lf") {
    write("HTTP/1.1 200 OK\nContent-Length: 5\n\nhello");
  } else if (fault == "stall" || fault == "stall_mid_body") {
    if (fault == "stall_mid_body") write("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + some);
    Error error;  // silent until the other side gives up
    while (!error) stream_.read_some(buffer_.prepare(4096), error);
  }
  return false;
}

bool Connection::send_filler(std::uint64_t size, bool chunked) {
  static const std::string kBlock = [] {
    std::string block;
    while (block.size() < 64 * 1024) block += "0123456789abcdef";
    return block;
  }();
  while (size > 0) {
    const std::size_t n = std::min<std::uint64_t>(size, kBlock.size());
    if (chunked && !write(fmt::format("{:x}\r\n", n))) return false;
    if (!write(std::string_view(kBlock).substr(0, n)) || (chunked && !write("\r\n"))) return false;
    size -= n;
  }
  return true;
}

bool Connection::send(const Request& request, const Reply& reply, bool keep_alive) {
  for (const auto& [status, fields] : reply.interim) {
    if (request.version < 11) break;
    std::string head =
        fmt::format("HTTP/1.1 {} {}\r\n", status, status == 103 ? "Early Hints" : "Processing");
    for (const auto& [name, value] : fields) head += name + ": " + value + "\r\n";
    if (!write(head + "\r\n")) return false;
  }
  const bool chunked = reply.chunked && request.version >= 11;
  const bool no_body = request.method == "HEAD" || reply.status == 204 || reply.status == 304;
  std::string head = fmt::format("HTTP/1.1 {} {}\r\n", reply.status,
                                 std::string(http::obsolete_reason(static_cast<http::status>(reply.status))));
  for (const auto& [name, value] : reply.headers) head += name + ": " + value + "\r\n";
  if (chunked)
    head += "Transfer-Encoding: chunked\r\n";
  else if (reply.status != 204)
    head += fmt::format("Content-Length: {}\r\n", reply.body.size() + reply.filler);
  if (!keep_alive)
    head += "Connection: close\r\n";
  else if (request.version < 11)
    head += "Connection: keep-alive\r\n";
  head += "\r\n";
  if (no_body) return write(head);
  if (chunked && !reply.body.empty())
    head += fmt::format("{:x}\r\n{}\r\n", reply.body.size(), reply.body);
  else
    head += reply.body;
  if (!write(head) || !send_filler(reply.filler, chunked)) return false;
  if (!chunked) return true;
  std::string end = "0\r\n";
  for (const auto& [name, value] : reply.trailers) end += name + ": " + value + "\r\n";
  return write(end + "\r\n");
}

void Connection::echo_websocket(const Request& request) {
  http::request<http::empty_body> handshake;
  handshake.version(11);
  handshake.method(http::verb::get);
  handshake.target(request.target);
  for (const auto& [name, value] : request.headers) handshake.insert(name, value);
  const auto ahead = buffer_.data();
  stream_.put_back(std::string(static_cast<const char*>(ahead.data()), ahead.size()));
  buffer_.consume(buffer_.size());
  beast::websocket::stream<Stream&> socket(stream_);
  Error error;
  socket.accept(handshake, error);
  while (!error) {
    beast::flat_buffer message;
    socket.read(message, error);
    if (error) break;
    socket.text(socket.got_text());
    socket.write(message.data(), error);
  }
}

}  // namespace

void serve_connection(Stream stream, Crm& crm, Control& control) {
  control.connection_opened();
  try {
    Connection(std::move(stream), crm, control).run();
  } catch (const std::exception& error) {
    fmt::print(stderr, "standin_crm: connection ended: {}\n", error.what());
  }
}

}  // namespace tollgate::standin

// A small HTTP/1.1 service for the admin port, on a thread and event base of its own, so that a busy data
// plane cannot starve it. Strict like the data plane (same parser). Not for proxied traffic: replies are
// whole strings.
//
//   auto service = LocalService::start("127.0.0.1:9901", [](const LocalRequest& request, LocalReplyTo reply)
//   {
//     reply(LocalReply{.status = 200, .content_type = "text/plain", .body = "ok\n"});   // now or later, any
//     thread
//   });
//
// The handler runs on the service's thread: it must not block. `reply` may be called once, from any thread,
// also after the client or the service is gone (then it does nothing). A reply function that is dropped
// uncalled answers 500. Limits: 64 connections, head 16 KiB, body 1 MiB, 30 s for a request, 60 s idle.
//
// When all 64 are taken, or descriptors have run out, the connection that has waited longest makes room for a new
// one: an idle one, else one whose request is not whole. None that is being answered is closed for that; when all
// are, the new one is. A descriptor is kept for the first connection that comes when there is no other.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "metering/base/error.h"

namespace tollgate::net {

// Views live during the handler's call only.
struct LocalRequest {
  std::string_view method;  // "GET"; HEAD requests arrive as GET, the body of the reply is left out
  std::string_view path;    // as sent, without the query
  std::string_view query;
  struct Field {
    std::string_view name, value;
  };
  std::vector<Field> fields;
  std::string_view body;
  std::string_view peer;  // address without port
  // First value of a field, "" when absent. Names compare without case.
  std::string_view field(std::string_view name) const;
};

struct LocalReply {
  int status = 200;
  std::string content_type = "text/plain; charset=utf-8";
  std::string fields;  // further field lines, each with CRLF
  std::string body;
};

using LocalReplyTo = std::function<void(LocalReply)>;
using LocalHandler = std::function<void(const LocalRequest&, LocalReplyTo)>;

class LocalService {
 public:
  // address: "127.0.0.1:9901", "[::1]:0". Listens when it returns.
  static Result<std::unique_ptr<LocalService>> start(const std::string& address, LocalHandler handler);
  ~LocalService();  // closes every connection and joins the thread
  LocalService(const LocalService&) = delete;
  LocalService& operator=(const LocalService&) = delete;

  std::uint16_t port() const;

 private:
  struct Impl;
  explicit LocalService(std::shared_ptr<Impl> impl);
  std::shared_ptr<Impl> impl_;
};

}  // namespace tollgate::net

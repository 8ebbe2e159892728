// One question to several servers that should all know the answer (sentinels, nodes of a cluster): they are
// asked one after the other, over short-lived connections, until one gives an answer that is of use.
// Inside this room only.
//
//   Inquiry inquiry(base, {.connection = options, .servers = urls, .command = {"CLUSTER", "SLOTS"}, .each = 200ms},
//                   [&](Reply& reply, const StoreUrl& from) { return take_over(reply); },   // true: of use
//                   [&](const std::string& why) { ... });                                   // nobody knew
//
// Threads: on the loop's thread. Neither function is called before the constructor has returned. `use` may destroy
// the Inquiry if it then returns true; so may `failed`. Exactly one ending: an answer of use, or `failed`.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "metering/redis/connection.h"

struct event;

namespace tollgate::redis {

class Inquiry {
 public:
  struct Question {
    ConnectionOptions connection;  // everything but the address
    std::vector<StoreUrl> servers;
    std::vector<std::string> command;
    Milliseconds each{250};  // longest wait for one server
  };
  using Use = std::function<bool(Reply& reply, const StoreUrl& from)>;
  using Failed = std::function<void(const std::string& why)>;

  Inquiry(event_base* base, Question question, Use use, Failed failed);
  ~Inquiry();
  Inquiry(const Inquiry&) = delete;
  Inquiry& operator=(const Inquiry&) = delete;

 private:
  static void next_event(int, short, void* self);
  void ask_next();
  void answered(Result<Reply*> reply);

  event_base* base_;
  Question question_;
  Use use_;
  Failed failed_;
  std::size_t next_ = 0;
  std::string complaints_;
  std::unique_ptr<Connection> connection_;
  event* next_event_ = nullptr;
};

}  // namespace tollgate::redis

// RedisStore, queries: reads without charging, changes by administrators, the scan of everything.
#include <fmt/format.h>

#include <algorithm>
#include <unordered_set>

#include "metering/base/check.h"
#include "metering/redis/redis_store_impl.h"

namespace tollgate::redis {
namespace {

constexpr int kRedirectionsMax = 5;
constexpr std::string_view kScanCount = "256";  // keys a step

quota::AccountKey key_of(const std::string& subject_key, const std::string& field) {
  return {.subject_key = subject_key, .field = field};
}

// Several answers that make one. The first error is the error of all.
template <class T>
struct Gathering {
  std::size_t missing = 0;
  std::optional<Error> error;
  T value{};
  std::function<void(Result<T>&&)> done;

  void count_down() {
    if (--missing != 0) return;
    if (error)
      done(std::unexpected(*error));
    else
      done(std::move(value));
  }
};

}  // namespace

void RedisStore::Impl::ask(unsigned partition, std::shared_ptr<const std::string> command,
                           Milliseconds timeout, bool durable, std::function<void(Result<Reply*>)> done) {
  auto one = std::make_shared<Query>(Query{.partition = partition,
                                           .command = std::move(command),
                                           .deadline = Connection::now() + timeout,
                                           .timeout = timeout,
                                           .durable = durable,
                                           .done = std::move(done)});
  ++counters_.commands;
  query(one, topology_.of(partition), false);
}

void RedisStore::Impl::run(unsigned partition, const Script& script,
                           const std::function<ScriptCall(const std::string& run)>& call,
                           Milliseconds timeout, bool durable, std::function<void(Result<Reply*>)> done) {
  Link* link = topology_.of(partition);
  if (link == nullptr || !link->up())
    return done(fail(Origin::store, link == nullptr ? topology_.last_error() : link->last_error(), true));
  const ScriptCall made = call(link->run_id());
  auto one = std::make_shared<Query>(Query{.partition = partition,
                                           .command = encode_script(script, made.keys, made.args),
                                           .deadline = Connection::now() + timeout,
                                           .timeout = timeout,
                                           .durable = durable,
                                           .done = std::move(done),
                                           .follow = false});
  ++counters_.commands;
  query(one, link, false);
}

void RedisStore::Impl::query(std::shared_ptr<Query> one, Link* link, bool asking) {
  if (link == nullptr) return one->done(fail(Origin::store, topology_.last_error(), true));
  StoreUrl from = link->server();
  auto command = one->command;
  link->send({.command = std::move(command),
              .deadline = one->deadline,
              .timeout = one->timeout,
              .durable = one->durable,
              .asking = asking,
              .done = [this, one, from = std::move(from)](Result<Reply*> reply) {
                if (!reply) return one->done(std::move(reply));
                ++counters_.replies;
                if ((*reply)->is_error()) ++counters_.errors;
                auto redirection = topology_.cluster() && one->redirections < kRedirectionsMax
                                       ? parse_redirection(**reply, {.host = from.host, .port = from.port})
                                       : std::nullopt;
                if (!redirection) return one->done(std::move(reply));
                ++one->redirections;
                ++counters_.redirections;
                if (!redirection->ask) topology_.moved(*redirection);
                if (!one->follow) return one->done(fail(Origin::store, (*reply)->text, true));
                query(one, &topology_.at(redirection->to), redirection->ask);
              }});
}

void RedisStore::run(unsigned partition, const Script& script,
                     const std::function<ScriptCall(const std::string& run)>& call, Milliseconds timeout,
                     bool durable, std::function<void(Result<Reply*>)> done) {
  impl_->run(partition, script, call, timeout, durable, std::move(done));
}
const RedisStoreOptions& RedisStore::options() const {
  return impl_->options();
}

// ------------------------------------------------------------------------------------ reads

void RedisStore::read(std::vector<quota::AccountCharge> accounts, States done) {
  // One call a subject; the states go back to the places of their accounts.
  std::map<std::string, std::vector<std::size_t>> subjects;
  for (std::size_t i = 0; i < accounts.size(); ++i) subjects[accounts[i].key.subject_key].push_back(i);
  if (subjects.empty()) return done(std::vector<quota::LeaseState>{});
  auto all = std::make_shared<Gathering<std::vector<quota::LeaseState>>>();
  all->missing = subjects.size();
  all->value.resize(accounts.size());
  all->done = std::move(done);
  for (auto& [subject, places] : subjects) {
    std::vector<quota::AccountCharge> of_subject;
    for (std::size_t place : places) of_subject.push_back(accounts[place]);
    ScriptCall call = states_call(of_subject);
    auto command = encode_script(impl_->scripts().states, call.keys, call.args);
    impl_->ask(quota::partition_of(subject), std::move(command), impl_->options().timeout, false,
               [all, places](Result<Reply*> reply) {
                 auto states = reply ? parse_states(**reply, places.size())
                                     : Result<std::vector<quota::LeaseState>>(std::unexpected(reply.error()));
                 if (!states)
                   all->error = states.error();
                 else
                   for (std::size_t i = 0; i < places.size(); ++i) all->value[places[i]] = (*states)[i];
                 all->count_down();
               });
  }
}

void RedisStore::list(std::string subject_key, std::string prefix, Milliseconds window, Milliseconds bucket,
                      quota::Ledger::ListDone done) {
  ScriptCall call = accounts_call(subject_key, prefix, window, bucket);
  auto command = encode_script(impl_->scripts().accounts, call.keys, call.args);
  impl_->ask(quota::partition_of(subject_key), std::move(command), impl_->options().timeout, false,
             [done = std::move(done)](Result<Reply*> reply) {
               if (!reply) return done(std::unexpected(reply.error()));
               done(parse_accounts(**reply));
             });
}

// ------------------------------------------------------------------------------------ changes

void RedisStore::set_override(const quota::AccountKey& account, std::optional<quota::LimitOverride> value,
                              Changed done) {
  ScriptCall call = set_override_call(account, value);
  auto command = encode_script(impl_->scripts().set_override, call.keys, call.args);
  impl_->ask(quota::partition_of(account.subject_key), std::move(command), impl_->options().admin_timeout,
             true, [done = std::move(done)](Result<Reply*> reply) {
               if (!reply) return done(std::unexpected(reply.error()));
               done(parse_change(**reply));
             });
}

void RedisStore::get_override(const quota::AccountKey& account, OverrideRead done) {
  unsigned partition = quota::partition_of(account.subject_key);
  auto command = encode_command({"HGET", override_key(partition), override_field(account)});
  impl_->ask(partition, std::move(command), impl_->options().admin_timeout, false,
             [done = std::move(done)](Result<Reply*> reply) {
               if (!reply) return done(std::unexpected(reply.error()));
               done(parse_override(**reply));
             });
}

void RedisStore::reset(std::vector<quota::AccountKey> accounts, Changed done) {
  std::map<std::string, std::vector<std::string>> subjects;
  for (quota::AccountKey& account : accounts)
    subjects[account.subject_key].push_back(std::move(account.field));
  if (subjects.empty()) return done({});
  struct Outcome {
    std::size_t missing = 0;
    Result<void> result;
    Changed done;
  };
  auto all = std::make_shared<Outcome>();
  all->missing = subjects.size();
  all->done = std::move(done);
  for (const auto& [subject, fields] : subjects) {
    ScriptCall call = reset_call(subject, fields);
    auto command = encode_script(impl_->scripts().reset, call.keys, call.args);
    impl_->ask(quota::partition_of(subject), std::move(command), impl_->options().admin_timeout, true,
               [all](Result<Reply*> reply) {
                 auto changed = reply ? parse_change(**reply) : Result<void>(std::unexpected(reply.error()));
                 if (!changed) all->result = changed;
                 if (--all->missing == 0) all->done(all->result);
               });
  }
}

void RedisStore::command(unsigned partition, const std::vector<std::string_view>& words, Milliseconds timeout,
                         std::function<void(Result<Reply*>)> done) {
  impl_->ask(partition, encode_command(words), timeout, false, std::move(done));
}

// ------------------------------------------------------------------------------------ scan

namespace {

// One scan under way: server after server, step after step; the hashes of a step are fetched in one pipeline.
struct Scan : std::enable_shared_from_this<Scan> {
  using Stored = RedisStore::StoredAccount;
  std::vector<Link*> links;  // compared, never followed, before they are known to be there still
  std::function<std::vector<Link*>()> present;
  Milliseconds timeout{0};
  std::unordered_set<std::string> seen;  // SCAN may name a key more than once
  std::vector<Stored> found;
  std::function<void(Result<std::vector<Stored>>&&)> done;

  void run(std::size_t server, const std::string& cursor) {
    if (server == links.size()) return done(std::move(found));
    send(links[server], {"SCAN", cursor, "MATCH", "q:*", "COUNT", kScanCount},
         [self = shared_from_this(), server](Result<Reply*> reply) {
           if (!reply) return self->done(std::unexpected(reply.error()));
           Reply& step = **reply;
           if (step.type != Reply::Type::array || step.elements.size() != 2)
             return self->refuse("SCAN", step);
           self->fetch(server, step.elements[0].text, step.elements[1].elements);
         });
  }

  void fetch(std::size_t server, const std::string& cursor, const std::vector<Reply>& keys) {
    struct Step {
      std::size_t missing = 1;  // this function's own share
      std::optional<Error> error;
    };
    auto step = std::make_shared<Step>();
    auto over = [self = shared_from_this(), step, server, cursor] {
      if (--step->missing != 0) return;
      if (step->error) return self->done(std::unexpected(*step->error));
      self->run(cursor == "0" ? server + 1 : server, cursor == "0" ? "0" : cursor);
    };
    for (const Reply& key : keys) {
      // Keys of ours parse; what else begins with q: is somebody else's.
      if (!quota::parse_subject_key(key.text) || !seen.insert(key.text).second) continue;
      ++step->missing;
      send(links[server], {"HGETALL", key.text},
           [self = shared_from_this(), step, over, name = key.text](Result<Reply*> reply) {
             if (!reply)
               step->error = reply.error();
             else if ((*reply)->type != Reply::Type::array)
               step->error = Error{fmt::format("HGETALL {}: {}", name, (*reply)->text), Origin::store, true};
             else
               self->take(name, **reply);
             over();
           });
    }
    over();
  }

  void take(const std::string& subject, Reply& fields) {
    for (std::size_t i = 0; i + 1 < fields.elements.size(); i += 2)
      found.push_back({.key = key_of(subject, fields.elements[i].text),
                       .record = std::move(fields.elements[i + 1].text)});
  }

  void refuse(std::string_view what, const Reply& reply) {
    done(fail(Origin::store, fmt::format("{}: {}", what, reply.is_error() ? reply.text : "not understood"),
              true));
  }

  void send(Link* link, const std::vector<std::string_view>& words, Link::Done answered) {
    std::vector<Link*> now = present();
    if (std::ranges::find(now, link) == now.end())
      return answered(fail(Origin::store, "the cluster changed during the scan", true));
    link->send({.command = encode_command(words),
                .deadline = Connection::now() + timeout,
                .timeout = timeout,
                .done = std::move(answered)});
  }
};

}  // namespace

void RedisStore::scan(std::function<void(Result<std::vector<StoredAccount>>&&)> done) {
  auto scan = std::make_shared<Scan>();
  scan->present = [impl = impl_.get()] { return impl->topology().all(); };
  scan->links = scan->present();
  scan->timeout = impl_->options().admin_timeout;
  scan->done = std::move(done);
  if (scan->links.empty()) return scan->done(fail(Origin::store, impl_->topology().last_error(), true));
  scan->run(0, "0");
}

}  // namespace tollgate::redis

#include "tests/sim/backend.h"

#include "metering/base/check.h"

namespace tollgate::sim {
namespace {

class ModelBackend final : public Backend {
 public:
  explicit ModelBackend(std::function<Milliseconds()> clock) : model_(std::move(clock)) {}

  quota::OpReply apply(const quota::Op& op, const quota::SendContext& context) override {
    return model_.apply(op, context);
  }
  quota::OpReply replay(const quota::Replay& replay, const quota::SendContext& context) override {
    return model_.replay(replay, context);
  }
  quota::PingReply ping(const quota::Ping& ping, const quota::SendContext& context) override {
    return model_.ping(ping, context);
  }
  std::vector<quota::LeaseState> read(const std::vector<quota::AccountCharge>& accounts) override {
    return model_.read(accounts);
  }
  void set_override(const quota::AccountKey& account,
                    const std::optional<quota::LimitOverride>& value) override {
    model_.set_override(account, value);
  }
  std::vector<quota::StoreModel::Message> take_messages() override { return model_.take_messages(); }
  void set_listeners(std::uint32_t count) override {
    listeners_ = count;
    model_.set_listeners(count);
  }
  void flush() override { model_.flush(); }
  std::uint64_t hwm(unsigned partition, quota::Incarnation incarnation) override {
    return model_.hwm(partition, incarnation);
  }
  Sums sums(const quota::AccountKey& key, const quota::WindowShape& shape) override {
    return model_.sums(key, shape);
  }
  void save(std::uint64_t copy) override { copies_.insert_or_assign(copy, model_); }
  void restore(std::uint64_t copy) override {
    auto found = copies_.find(copy);
    CHECK(found != copies_.end(), "a copy that was saved");
    model_ = found->second;
    model_.set_listeners(listeners_);
  }
  void forget(std::uint64_t copy) override { copies_.erase(copy); }

 private:
  quota::StoreModel model_;
  std::map<std::uint64_t, quota::StoreModel> copies_;
  std::uint32_t listeners_ = 1;
};

}  // namespace

std::unique_ptr<Backend> make_model_backend(std::function<Milliseconds()> clock) {
  return std::make_unique<ModelBackend>(std::move(clock));
}

}  // namespace tollgate::sim

#include "metering/quota/store_model.h"

#include <algorithm>

#include "metering/base/check.h"
#include "metering/quota/keys.h"

namespace tollgate::quota {
namespace {

constexpr Milliseconds kMemberKept{48LL * 3'600'000};
constexpr std::uint64_t kHoldersMost = 11;  // that a share is reckoned for: most of many are idle

// What time it is, as far as that is known. Where the store's clock and the sender's estimate of it are too far apart,
// one of them has jumped: the earlier one frees nothing too early. A sender that knows no clock names none.
Milliseconds believed(Milliseconds clock, const SendContext& context) {
  if (context.clock == Milliseconds(0) || std::chrono::abs(clock - context.clock) <= kClockGuard)
    return clock;
  return std::min(clock, context.clock);
}

// Nothing is lent while clocks disagree: the sender's and the store's, or the store's and what it said before.
bool clock_off(Milliseconds clock, Milliseconds newest, const SendContext& context) {
  return std::chrono::abs(clock - context.clock) > kClockGuard || newest - clock > kClockGuard;
}

std::string override_name(const AccountKey& account) {
  return account.subject_key + " " + account.field;
}

// What one op says was used: counted, and how much of it came out of the lease.
struct Settled {
  std::uint64_t admitted = 0;  // units that had been lent
  std::uint64_t live = 0;      // of these, in buckets that still count
  bool freed = false;          // units have left that never happened
};

Settled settle(AccountRecord& record, const OpAccount& account, const WindowShape& shape, Milliseconds now) {
  Settled settled;
  for (const BucketUse& use : account.uses) {
    if (use.units < 0) {
      const auto units = static_cast<std::uint64_t>(-use.units);
      settled.freed = record.window.remove(shape, now, use.bucket, units) > 0 || settled.freed;
      continue;
    }
    const auto units = static_cast<std::uint64_t>(use.units);
    settled.admitted += units;
    if (shape.live(use.bucket, now)) settled.live += units;
    if (units > 0) record.window.count(shape, now, use.bucket, units);
  }
  return settled;
}

std::uint64_t room(const AccountRecord& record, std::uint64_t limit, Incarnation incarnation) {
  if (record.leases().size() == kLeasesMax && record.lent_to(incarnation) == 0) return 0;
  // No limit: more than any grant, and dividing it leaves more than any grant.
  if (limit == kUnlimited) return kCountMax;
  const std::uint64_t charged = record.window.used() + record.lent();
  return charged < limit ? limit - charged : 0;
}

std::uint64_t grant_of(const OpAccount& account, std::uint64_t avail, std::uint64_t mine,
                       std::uint64_t holders, std::uint32_t lease_max) {
  const std::uint64_t fair = std::max<std::uint64_t>(avail / (1 + std::min(holders, kHoldersMost)), 1);
  std::uint64_t granted = std::max<std::uint64_t>(account.need, std::min<std::uint64_t>(account.want, fair));
  const std::uint64_t generous = std::min<std::uint64_t>(lease_max, avail / (8 * (1 + holders)));
  if (account.want > account.need && generous > mine) granted = std::max(granted, generous - mine);
  return std::min(granted, avail);
}

void describe(LeaseState& state, const AccountRecord& record, const WindowShape& shape, std::uint64_t limit,
              Incarnation incarnation) {
  state.outstanding = record.lent_to(incarnation);
  state.used = record.window.used();
  state.lent_to_others = record.lent() - state.outstanding;
  state.limit = limit;
  if (const RollingWindow::Bucket oldest = record.window.oldest(); oldest.count > 0) {
    state.next_free_at = shape.leaves_at(oldest.number);
    state.next_free_units = oldest.count;
  }
}

// When `need` would fit if all others gave everything back. 0 where only that is missing, or where this incarnation's
// own tokens stand in the way: what becomes of them is not known.
Milliseconds fits_at(const AccountRecord& record, const WindowShape& shape, Milliseconds now,
                     std::uint64_t limit, std::uint64_t mine, std::uint64_t need) {
  if (need > limit) return Milliseconds::max();
  if (mine + need > limit) return Milliseconds(0);
  const Milliseconds wait = record.window.fits_after(shape, now, limit - mine, need);
  return wait == Milliseconds(0) ? wait : now + wait;
}

}  // namespace

// One account of an op while it is applied.
struct StoreModel::Settling {
  AccountRecord record;
  WindowShape shape;
  std::uint64_t limit = 0;
  LeaseState state;
  bool freed = false;
};

StoreModel::StoreModel(std::function<Milliseconds()> clock) : clock_(std::move(clock)) {}

Milliseconds StoreModel::expiry_of(const Partition& partition, Incarnation incarnation) const {
  auto member = partition.members.find(incarnation);
  return member == partition.members.end() ? Milliseconds(0) : member->second.expiry;
}

AccountRecord StoreModel::load(const std::string& subject_key, const std::string& field,
                               const WindowShape& shape, const Partition& partition, Milliseconds now) const {
  auto decoded = AccountRecord::decode(record({subject_key, field}), shape.bucket);
  CHECK(decoded.has_value(), "the model wrote it");
  decoded->prune(shape, now, [&](Incarnation incarnation) { return expiry_of(partition, incarnation); });
  return std::move(*decoded);
}

void StoreModel::store(const std::string& subject_key, const std::string& field,
                       const AccountRecord& record) {
  std::string bytes = record.encode();
  if (!bytes.empty()) {
    subjects_[subject_key][field] = std::move(bytes);
  } else if (auto subject = subjects_.find(subject_key); subject != subjects_.end()) {
    subject->second.erase(field);
    if (subject->second.empty()) subjects_.erase(subject);
  }
}

std::uint64_t StoreModel::effective_limit(const AccountKey& key, std::uint64_t rule_limit,
                                          Milliseconds now) const {
  return get_override(key).value_or(LimitOverride{}).effective(rule_limit, now);
}

void StoreModel::recall(const Partition& partition, const AccountKey& account, const AccountRecord& record,
                        Incarnation but, Milliseconds now) {
  for (const RecordLease& lease : record.leases())
    if (lease.incarnation != but && std::max(lease.expiry, expiry_of(partition, lease.incarnation)) > now)
      messages_.push_back(
          {Message::Kind::recall, lease.incarnation, partition_of(account.subject_key), account});
}

OpReply StoreModel::apply(const Op& op, const SendContext& context) {
  Partition& partition = partitions_[op.partition];
  const Milliseconds clock = clock_(), now = std::max(believed(clock, context), partition.newest);
  auto found = partition.members.find(op.incarnation);
  OpReply reply;
  reply.hwm = found == partition.members.end() ? 0 : found->second.applied;
  reply.now = std::max(clock, partition.newest);
  reply.session_expiry = expiry_of(partition, op.incarnation);
  reply.fenced = partition.run.empty() || partition.run != context.run;
  reply.clock_off = clock_off(clock, partition.newest, context);
  if (op.seq > reply.hwm + 1) {
    reply.status = OpStatus::gap;
    return reply;
  }
  const bool duplicate = op.seq <= reply.hwm;
  if (duplicate) reply.status = OpStatus::duplicate;
  const Milliseconds expiry = std::max(reply.session_expiry, now + context.session_ttl);

  std::vector<Settling> accounts;
  for (const OpAccount& account : op.accounts) {
    const WindowShape shape{account.window, account.bucket};
    Settling& one =
        accounts.emplace_back(Settling{load(op.subject_key, account.field, shape, partition, now),
                                       shape,
                                       effective_limit({op.subject_key, account.field}, account.limit, now),
                                       {},
                                       false});
    if (duplicate) continue;
    const std::uint64_t lent = one.record.lent_to(op.incarnation);
    const Settled settled = settle(one.record, account, shape, now);
    one.freed = settled.freed && one.limit != kUnlimited;
    one.state.over = account.limit <= LimitOverride::kLimitMax && settled.live > lent;
    const std::uint64_t gone = settled.admitted + account.returned;
    const std::uint64_t left = account.forget || gone >= lent ? 0 : lent - gone;
    CHECK(one.record.set_lease({op.incarnation, left, expiry}), "no lease is new here");
  }
  if (!duplicate && !reply.fenced && !reply.clock_off) grant(accounts, op, context, partition, now, expiry);
  for (std::size_t i = 0; i < accounts.size(); ++i) {
    Settling& one = accounts[i];
    describe(one.state, one.record, one.shape, one.limit, op.incarnation);
    reply.states.push_back(one.state);
    if (!duplicate) store(op.subject_key, op.accounts[i].field, one.record);
    if (one.freed)
      messages_.push_back({Message::Kind::room, 0, op.partition, {op.subject_key, op.accounts[i].field}});
    const Milliseconds counted = one.shape.window + one.shape.guard();
    if (!duplicate && counted > std::max(kMemberKept, partition.keep)) partition.keep = counted;
  }
  if (duplicate) return reply;
  reply.hwm = op.seq;
  reply.session_expiry = expiry;
  Member& member = partition.members[op.incarnation];
  member.applied = op.seq;
  member.expiry = expiry;
  partition.newest = now;
  return reply;
}

void StoreModel::grant(std::vector<Settling>& accounts, const Op& op, const SendContext& context,
                       const Partition& partition, Milliseconds now, Milliseconds session_expiry) {
  bool refused = false;
  for (std::size_t i = 0; i < accounts.size(); ++i) {
    Settling& one = accounts[i];
    const std::uint32_t need = op.accounts[i].need;
    if (need <= room(one.record, one.limit, op.incarnation)) continue;
    refused = true;
    const std::uint64_t mine = one.record.lent_to(op.incarnation);
    one.state.fits_at = fits_at(one.record, one.shape, now, one.limit, mine, need);
    if (one.state.fits_at == Milliseconds(0))
      recall(partition, {op.subject_key, op.accounts[i].field}, one.record, op.incarnation, now);
  }
  if (refused) return;
  for (std::size_t i = 0; i < accounts.size(); ++i) {
    Settling& one = accounts[i];
    if (op.accounts[i].want == 0 && op.accounts[i].need == 0) continue;
    const std::uint64_t mine = one.record.lent_to(op.incarnation);
    const std::uint64_t holders = one.record.leases().size() - (mine > 0 ? 1 : 0);
    one.state.granted = grant_of(op.accounts[i], room(one.record, one.limit, op.incarnation), mine, holders,
                                 context.lease_max);
    CHECK(one.record.set_lease({op.incarnation, mine + one.state.granted, session_expiry}),
          "room() leaves a place");
  }
}

OpReply StoreModel::replay(const Replay& replay, const SendContext& context) {
  const Op& op = replay.op;
  CHECK(replay.outstanding.size() == op.accounts.size(), "what is held of each account");
  Partition& partition = partitions_[op.partition];
  const Milliseconds clock = clock_(), now = std::max(believed(clock, context), partition.newest);
  auto found = partition.members.find(op.incarnation);
  OpReply reply;
  reply.hwm = found == partition.members.end() ? 0 : found->second.applied;
  reply.now = std::max(clock, partition.newest);
  reply.session_expiry = expiry_of(partition, op.incarnation);
  reply.fenced = partition.run.empty() || partition.run != context.run;
  reply.clock_off = clock_off(clock, partition.newest, context);
  if (op.seq <= reply.hwm) reply.status = OpStatus::duplicate;
  if (op.seq > reply.hwm + 1 && !replay.base) reply.status = OpStatus::gap;
  if (reply.status != OpStatus::applied) return reply;

  for (std::size_t i = 0; i < op.accounts.size(); ++i) {
    const OpAccount& account = op.accounts[i];
    const WindowShape shape{account.window, account.bucket};
    AccountRecord record = load(op.subject_key, account.field, shape, partition, now);
    const bool freed = settle(record, account, shape, now).freed;
    if (!record.set_lease({op.incarnation, replay.outstanding[i], replay.session_expiry}))
      record.window.count(shape, now, shape.bucket_of(now), replay.outstanding[i]);
    store(op.subject_key, account.field, record);
    if (freed) messages_.push_back({Message::Kind::room, 0, op.partition, {op.subject_key, account.field}});
    const Milliseconds counted = shape.window + shape.guard();
    if (counted > std::max(kMemberKept, partition.keep)) partition.keep = counted;
  }
  // Alive now, so not to be forgotten; but its session is what it was.
  reply.hwm = op.seq;
  reply.session_expiry = std::max({reply.session_expiry, replay.session_expiry, now});
  Member& member = partition.members[op.incarnation];
  member.applied = op.seq;
  member.expiry = reply.session_expiry;
  partition.newest = now;
  if (reply.fenced && partition.fence_run == context.run) partition.fence_at = now;
  return reply;
}

PingReply StoreModel::ping(const Ping& ping, const SendContext& context) {
  Partition& partition = partitions_[ping.partition];
  const Milliseconds clock = clock_(), now = std::max(believed(clock, context), partition.newest);
  const Milliseconds told = std::max(clock, partition.newest);
  // Who knows no clock cannot say that this one has not jumped.
  if (context.clock != Milliseconds(0)) partition.newest = now;
  const bool unseen =
      partition.members.empty() && partition.run.empty() && ping.acked == 0 && ping.peers.empty();
  for (const Ping::Peer& peer : ping.peers)
    if (peer.incarnation != ping.incarnation && peer.session_expiry > now) {
      Milliseconds& expiry = partition.members[peer.incarnation].expiry;
      expiry = std::max(expiry, peer.session_expiry);
    }
  Member& self = partition.members[ping.incarnation];
  self.expiry = std::max(self.expiry, now + context.session_ttl);
  const Milliseconds kept = std::max(kMemberKept, partition.keep);
  std::erase_if(partition.members, [&](const auto& member) { return member.second.expiry + kept <= now; });

  const bool fenced = partition.run.empty() || partition.run != context.run;
  if (fenced && partition.fence_run != context.run) {
    for (auto& [incarnation, member] : partition.members) member.vote.clear();
    partition.fence_run = context.run;
    partition.fence_at = unseen ? now - context.fence_settle : now;
    partition.fence_voters = listeners_;
    messages_.push_back({Message::Kind::fence, 0, ping.partition, {}});
  }
  partition.fence_at = std::min(partition.fence_at, now);  // it was raised by a clock that was wrong
  const bool votes = self.applied >= ping.acked;
  self.vote = votes ? context.run : std::string();
  if (fenced && !votes) partition.fence_at = now;

  PingReply reply;
  reply.open = !fenced || opens(partition, context, now);
  // Who waits need not wait for its next ping.
  if (fenced && reply.open) messages_.push_back({Message::Kind::fence, 0, ping.partition, {}});
  reply.hwm = self.applied;
  reply.now = told;
  reply.session_expiry = self.expiry;
  for (const auto& [incarnation, member] : partition.members)
    if (member.expiry > now) reply.peers.push_back({incarnation, member.expiry});
  return reply;
}

bool StoreModel::opens(Partition& partition, const SendContext& context, Milliseconds now) {
  std::uint32_t votes = 0, missing = 0;
  for (const auto& [incarnation, member] : partition.members)
    if (member.expiry > now) ++(member.vote == context.run ? votes : missing);
  const bool agreed = missing == 0 && votes >= partition.fence_voters;
  if (now - partition.fence_at < (agreed ? context.fence_settle : context.fence_wait)) return false;
  partition.run = context.run;
  partition.fence_run.clear();
  partition.fence_at = Milliseconds(0);
  partition.fence_voters = 0;
  return true;
}

std::vector<LeaseState> StoreModel::read(const std::vector<AccountCharge>& accounts) {
  std::vector<LeaseState> states;
  for (const AccountCharge& asked : accounts) {
    const Partition& partition = partitions_[partition_of(asked.key.subject_key)];
    const Milliseconds now = std::max(clock_(), partition.newest);
    const WindowShape shape{asked.window, asked.bucket};
    describe(states.emplace_back(), load(asked.key.subject_key, asked.key.field, shape, partition, now),
             shape, effective_limit(asked.key, asked.limit, now), 0);
  }
  return states;
}

std::vector<Ledger::Listed> StoreModel::list(const std::string& subject_key, const std::string& prefix,
                                             Milliseconds window, Milliseconds bucket) {
  std::vector<Ledger::Listed> listed;
  const Partition& partition = partitions_[partition_of(subject_key)];
  const Milliseconds now = std::max(clock_(), partition.newest);
  auto subject = subjects_.find(subject_key);
  if (subject == subjects_.end()) return listed;
  for (const auto& [field, bytes] : subject->second) {
    if (!field.starts_with(prefix)) continue;
    const std::uint64_t used = load(subject_key, field, {window, bucket}, partition, now).window.used();
    if (used > 0) listed.push_back({field, used});
  }
  return listed;
}

void StoreModel::set_override(const AccountKey& account, const std::optional<LimitOverride>& value) {
  const unsigned number = partition_of(account.subject_key);
  const Partition& partition = partitions_[number];
  const Milliseconds now = std::max(clock_(), partition.newest);
  const bool present = value && !value->empty();
  if (present)
    overrides_[override_name(account)] = value->format();
  else
    overrides_.erase(override_name(account));
  messages_.push_back({Message::Kind::policy, 0, number, account});
  const std::string bytes = record(account);
  if (bytes.empty()) return;
  auto decoded = AccountRecord::decode(bytes);
  CHECK(decoded.has_value(), "the model wrote it");
  // The window's length is not known here, so nothing is pruned: a recall too many does no harm. Neither is the rule's
  // limit.
  const bool limit_known = present && value->limit.has_value();
  const std::uint64_t limit = limit_known ? value->effective(0, now) : 0;
  if (limit == kUnlimited || decoded->window.used() + decoded->lent() <= limit) return;
  recall(partition, account, *decoded, 0, now);
}

std::optional<LimitOverride> StoreModel::get_override(const AccountKey& account) const {
  auto found = overrides_.find(override_name(account));
  return found == overrides_.end() ? std::nullopt : LimitOverride::parse(found->second);
}

void StoreModel::reset(const AccountKey& account) {
  if (const std::string bytes = record(account); !bytes.empty()) {
    auto decoded = AccountRecord::decode(bytes);
    CHECK(decoded.has_value(), "the model wrote it");
    decoded->window = RollingWindow(decoded->window.bucket());
    store(account.subject_key, account.field, *decoded);
  }
  messages_.push_back({Message::Kind::policy, 0, partition_of(account.subject_key), account});
}

std::vector<StoreModel::Message> StoreModel::take_messages() {
  return std::exchange(messages_, {});
}

void StoreModel::flush() {
  partitions_.clear();
  subjects_.clear();
  overrides_.clear();
}

std::string StoreModel::record(const AccountKey& key) const {
  auto subject = subjects_.find(key.subject_key);
  if (subject == subjects_.end()) return "";
  auto field = subject->second.find(key.field);
  return field == subject->second.end() ? "" : field->second;
}

std::uint64_t StoreModel::hwm(unsigned partition, Incarnation incarnation) const {
  auto found = partitions_.find(partition);
  if (found == partitions_.end()) return 0;
  auto member = found->second.members.find(incarnation);
  return member == found->second.members.end() ? 0 : member->second.applied;
}

std::map<std::string, std::string> StoreModel::partition_fields(unsigned partition) const {
  std::map<std::string, std::string> fields;
  auto found = partitions_.find(partition);
  if (found == partitions_.end()) return fields;
  auto put = [&](std::string name, std::int64_t value) {
    if (value != 0) fields[std::move(name)] = std::to_string(value);
  };
  const Partition& one = found->second;
  for (const auto& [incarnation, member] : one.members) {
    put(std::to_string(incarnation), static_cast<std::int64_t>(member.applied));
    put("x" + std::to_string(incarnation), member.expiry.count());
    if (!member.vote.empty()) fields["v" + std::to_string(incarnation)] = member.vote;
  }
  put("t", one.newest.count());
  put("keep", one.keep.count());
  if (!one.run.empty()) fields["run"] = one.run;
  if (!one.fence_run.empty()) {
    fields["fence"] = one.fence_run;
    fields["fence_at"] = std::to_string(one.fence_at.count());
    fields["fence_voters"] = std::to_string(one.fence_voters);
  }
  return fields;
}

StoreModel::Sums StoreModel::sums(const AccountKey& key, const WindowShape& shape) {
  const Partition& partition = partitions_[partition_of(key.subject_key)];
  const AccountRecord record =
      load(key.subject_key, key.field, shape, partition, std::max(clock_(), partition.newest));
  return {record.window.used(), record.lent()};
}

}  // namespace tollgate::quota

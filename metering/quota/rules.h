// Which accounts a call charges: the quota rules of the configuration applied to one caller.
#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "metering/quota/ledger.h"

namespace tollgate::quota {

enum class Dimension : std::uint8_t { tenant, organization, product, user, object, operation };
enum class Scope : std::uint8_t { licensed, all, credits };

struct Rule {
  std::string name;  // [a-z0-9_-]+, stable: it is part of the key under which calls are counted
  std::uint64_t limit = 0;
  Milliseconds window{0};
  Milliseconds bucket{0};      // resolution: window/1440 within 100 ms .. 60 s unless configured
  std::vector<Dimension> per;  // tenant is always part of the subject
  // licensed: units on licensed objects; all: every forwarded call of an authenticated user is one unit; credits: it is as many
  // as the vendor counts it as (catalogue/credits.h).
  Scope on = Scope::licensed;
  bool applies_to_staff = false;
  bool shadow =
      false;  // a candidate limit: counted and reported, refuses nothing, named in no RateLimit field
  std::map<std::string, std::uint64_t> overrides;  // user (or organization, for rules without user) -> limit
};

struct Caller {
  std::string_view tenant, organization, user;
  bool staff = false;
  std::uint32_t credits = 0;  // that the call costs him
};
// One countable operation (licence::Unit without its room).
struct CountedOperation {
  std::string_view object, operation, product;
};

class Rules {
 public:
  Rules(std::vector<Rule> rules, bool count_by_object);

  const std::vector<Rule>& rules() const { return rules_; }
  // Every account the call charges, equal accounts merged (a batch of 37 reads of Case is one charge of 37).
  // A subject dimension that the caller lacks (no organization) gives the account of the empty name.
  // With count_by_object, one unlimited account a (object, operation) is added per call for GET /.tollgate/usage;
  // its `rule` is kObservation.
  std::vector<AccountCharge> charges(const Caller& caller,
                                     std::span<const CountedOperation> licensed_operations) const {
    std::vector<AccountCharge> charges;
    list_charges(caller, licensed_operations, charges);
    return charges;
  }
  // The same in place of what `charges` held, whose memory is used again.
  void list_charges(const Caller& caller, std::span<const CountedOperation> licensed_operations,
                    std::vector<AccountCharge>& charges) const;
  // The accounts of a caller that can be listed without a call: rules per tenant, organization, user.
  std::vector<AccountCharge> accounts(const Caller& caller) const;

  static constexpr std::uint32_t kObservation = UINT32_MAX;

  // Observation accounts ("#|Case|read") live under the user's subject key, over the window of the first rule per user
  // (24 h when there is none). For Ledger::list. subject_key is "" without count_by_object: there is nothing to list.
  struct Observation {
    std::string subject_key, prefix;
    Milliseconds window{0}, bucket{0};
  };
  Observation observation(const Caller& caller) const;
  // "#|Case|read" -> object and operation as escaped by keys.h (names of real objects need no escape), views into
  // `field`; nullopt for any other field.
  static std::optional<CountedOperation> parse_observation(std::string_view field);

 private:
  std::vector<Rule> rules_;
  bool count_by_object_;
  Milliseconds observed_window_{0}, observed_bucket_{0};  // of observation accounts
};

}  // namespace tollgate::quota

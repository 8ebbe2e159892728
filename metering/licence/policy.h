// May this user do this? The licence rules of one CRM system as data over a small engine.
//
// The data is a Rulebook: sections (object -> section, children, lookups), portal products with their rights matrix,
// availability by main product, custom sections, licence-name patterns. config/load reads it from a preset file
// (config/presets/bpmonline.yaml for bpm'online 7.x / Creatio 8.0), so another system is another file.
//
// Decision order (first match ends it), each step with its own Reason:
//   1 staff: allowed and not metered by these rules; `units` still lists the licensed operations, for quota rules that bind
//     staff too (quota::Rules leaves staff out of all others)
//   2 no licence name of the user matches a portal product            -> license_missing
//   3 no matching product is available with the owned main product   -> product_unavailable
//   4 object not in a section: passes, not counted (lookups, metadata, basic functions); where the rulebook denies what it
//     does not list (Zoho: every module has its permissions): section_not_licensed
//     section not in the rights of any of the user's products         -> section_not_licensed
//   5 operation not in rights[section]; delete is never granted       -> operation_not_licensed
//     section of one's own organization only (Section::own_organization), and a single record that is named is
//     another's, or it is not known whose                             -> operation_not_licensed
//   6 custom section beyond the explicit list                         -> custom_section_limit
// A call on licensed objects may need a seat of a product that caps its users. It does when one of its operations is granted
// by capped products alone: who also holds a licence without a cap needs no seat for what that one grants. Such a unit names
// the product without the cap. Whether there is a seat is not this room's question (metering/seats): `seat_products`
// only says of what.
// A use through $expand, $filter or a join is reported, not enforced: the CRM's own rights apply to it. Nor is `execute`
// of a process that nobody declared; the objects of a declared one count like any other.
// What an OData path reaches by a name that the rulebook does not know (catalogue::Beyond) is nobody's to use:
//   another object, from a record of a free object, or in order to write         -> section_not_licensed
//   a property or another object, from a record of a free object, to write       -> section_not_licensed
//   the same, to read: what Rulebook::unknown_denied says
// Else it is a property of the record, and that is judged and counted.
// One denied part denies the whole request: parts of an atomic change set cannot be cut out.
// Members of a portal are managed by staff: Kind::seat of a portal user                -> operation_not_licensed
// Pages, assets, log-in and addresses outside the CRM's APIs (Kind::asset, authentication, foreign) pass without steps
// 2 and 3, or nobody could log in. Kind::unknown: named objects are enforced, nothing is counted; whether the rest may pass
// is the caller's switch (catalogue.allow_unknown).
// A rulebook of decisions (Cherwell) has neither products nor rights: steps 2 to 6 are its rows, asked for each use with
// whose record it is, what is done with it, the portal's site and the user's rights. denied_rights is
// operation_not_licensed, denied_cannot_edit is license_required. A call of portal users that consumes needs a concurrent
// seat, the others need none. What an unknown call of the API does cannot be asked for: it counts as a view of one's own.
// System "none": every object of Kind::objects is licensed, nothing is denied, staff counts like anybody.
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "metering/base/reason.h"
#include "metering/catalogue/classification.h"
#include "metering/identity/principal.h"
#include "metering/licence/rulebook.h"

namespace tollgate::licence {

// One countable operation: what a quota is charged for. A batch of n operations on licensed objects is n units.
struct Unit {
  std::string_view object;  // canonical name; lives as long as the Classification and the Policy
  catalogue::Operation operation;
  std::string_view section;  // "cases", "custom:UsrRealty"; lives as long as the Policy
  std::string_view product;  // portal product that grants it; "" when not applicable
};

// What the licence room says of each use, in the order of Classification::uses; for `explain` and the tests.
struct ResolvedUse {
  std::string section;                     // "cases", "custom:UsrRealty"; "" when the object is in no section
  catalogue::Operation section_operation;  // a write on a child is an edit of its section
  enum class Role : std::uint8_t { none, root, child, view, lookup, feed, detail, custom } role = Role::none;
};

// Whose the record of a use is.
enum class Owner : std::uint8_t { unknown, own, other };
// Of a record in a section of one's own organization only. account: the one that owns it, as far as that is known, "" when
// none does; a use that names an owner in place of a record (catalogue/creatio_record.h) needs none.
Owner owner_for(const identity::Principal& caller, const catalogue::ObjectUse& use,
                const std::optional<std::string>& account);

struct Decision {
  Reason reason = Reason::ok;
  std::string detail;    // for the caller when denied: names object, section, product, operation
  bool metered = false;  // allowed, `units` is not empty, and the caller is bound by these rules
  std::vector<Unit>
      units;  // one a part that touches a licensed object; of a denied call too, for its usage fact
  std::uint32_t seat_products = 0;  // metered: bit i, a seat of Rulebook::products[i] is needed
  bool consumes = false;            // allowed by Rulebook::decisions with a concurrent licence
};

class Policy {
 public:
  explicit Policy(std::shared_ptr<const Rulebook> rulebook);
  // Thread-safe. Cost: a hash look-up a use.
  // The units view the classification's object names, so it must stay in place as long as the decision.
  // memory: an earlier decision, whose memory is used again.
  // owners: of the classification's uses, in their order; missing ones are unknown, which counts as somebody else's. The
  // record of a section of one's own organization only is the caller's own when its account is Principal::account.
  Decision decide(const identity::Principal& principal, const catalogue::Classification& classification,
                  Decision memory = {}, std::span<const Owner> owners = {}) const;
  Decision decide(const identity::Principal& principal, catalogue::Classification&& gone_too_soon,
                  Decision memory = {}) const = delete;
  // The products that licence names stand for, and of these the ones that the owned main products make available; for
  // `explain`. Bit i: Rulebook::products[i].
  struct Holding {
    std::uint32_t named = 0, available = 0;
  };
  Holding holding(const identity::Principal& principal) const;
  // What a product grants in a section as ResolvedUse names it.
  Rights rights_in(const Product& product, std::string_view section) const;
  bool by_table() const { return !rulebook_->decisions.empty(); }
  ResolvedUse resolve(const catalogue::ObjectUse& use) const;
  const Rulebook& rulebook() const { return *rulebook_; }

  // Longest licence name that is looked at; a longer one matches nothing.
  static constexpr std::size_t kLicenseNameMax = 512;

 private:
  struct Index;  // objects by name, compiled patterns
  struct Judge;  // one call of decide()
  Decision decide_by_table(const identity::Principal& principal,
                           const catalogue::Classification& classification, std::span<const Owner> owners,
                           Decision decision) const;
  std::string unavailable_text(std::uint32_t products) const;

  std::shared_ptr<const Rulebook> rulebook_;
  std::shared_ptr<const Index> index_;
};

}  // namespace tollgate::licence

#include "metering/licence/policy.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <utility>

#include "metering/base/check.h"
#include "metering/catalogue/creatio_record.h"
#include "metering/licence/index.h"

namespace tollgate::licence {
namespace {

using catalogue::Classification;
using catalogue::Kind;
using catalogue::ObjectUse;
using catalogue::Operation;
using catalogue::Via;
using Role = ResolvedUse::Role;

bool enforced(const ObjectUse& use) {
  switch (use.via) {
    case Via::primary:
    case Via::nav:
    case Via::service:
      return true;
    case Via::process:
      return use.operation != Operation::execute;  // the name of an undeclared process
    case Via::expand:
    case Via::filter:
    case Via::join:
      return false;
  }
  return false;
}

std::string_view verb(Operation operation) {
  switch (operation) {
    case Operation::read:
      return "Read";
    case Operation::create:
      return "Create";
    case Operation::edit:
      return "Edit";
    case Operation::remove:
      return "Delete";
    case Operation::execute:
      return "Execute";
  }
  return "";
}

// Object names of denied calls may be anything a client sent: sentences show the beginning.
std::string_view shown(std::string_view object) {
  return object.substr(0, 64);
}

std::string rights_text(Rights rights) {
  std::vector<std::string_view> names;
  for (Operation operation : {Operation::read, Operation::create, Operation::edit, Operation::remove})
    if ((rights & right(operation)) != 0) names.push_back(catalogue::name(operation));
  return names.empty() ? "nothing" : fmt::format("{}", fmt::join(names, ", "));
}

// What a use on an object in this role does to its section.
Operation section_operation(Role role, bool custom_root, Operation operation) {
  if (operation == Operation::read) return operation;
  if (operation == Operation::execute) return Operation::edit;  // an unknown effect may alter
  bool detail = role == Role::child || (role == Role::custom && !custom_root);
  return detail ? Operation::edit : operation;
}

// Products of one caller, and the sentences about them.
struct Granted {
  const Rulebook& rulebook;
  ProductSet products;

  template <class Each>
  void each(Each&& body) const {
    for (std::size_t i = 0; i < rulebook.products.size(); ++i)
      if ((products & (ProductSet{1} << i)) != 0) body(i, rulebook.products[i]);
  }
  std::string titles() const {
    std::vector<std::string_view> titles;
    each([&](std::size_t, const Product& product) { titles.push_back(product.title); });
    return fmt::format("{}", fmt::join(titles, " and "));
  }
  bool several() const { return (products & (products - 1)) != 0; }
};

std::string custom_limit_text(const Granted& granted, std::string_view object) {
  std::uint32_t most = 0;
  granted.each(
      [&](std::size_t, const Product& product) { most = std::max(most, product.custom_sections_max); });
  const auto& listed = granted.rulebook.custom_sections;
  if (most == 0)
    return fmt::format("{} belongs to a custom section, and {} includes no custom sections", object,
                       granted.titles());
  std::size_t permitted = std::min<std::size_t>(most, listed.size());
  return fmt::format(
      "{} belongs to a custom section that is not one of the permitted ones ({}); {} includes {} of them",
      object,
      permitted == 0 ? std::string("none is configured")
                     : fmt::format("{}", fmt::join(listed.begin(), listed.begin() + permitted, ", ")),
      granted.titles(), most);
}

}  // namespace

std::optional<std::uint64_t> seat_capacity(const Rulebook& rulebook, const Product& product) {
  std::optional<std::uint64_t> capacity;
  if (!product.seats) return capacity;
  if (product.seats->max > 0) capacity = product.seats->max;
  const std::uint64_t each = product.seats->per_main_product_user;
  if (each > 0 && rulebook.main_product_users > 0)
    capacity = std::min(capacity.value_or(UINT64_MAX), each * rulebook.main_product_users);
  return capacity;
}

bool is_available(const Rulebook& rulebook, const Product& product) {
  return std::ranges::any_of(product.available_with, [&](const std::string& with) {
    return with == "ALL" || std::ranges::find(rulebook.main_products, with) != rulebook.main_products.end();
  });
}

std::vector<std::string_view> sections_left_to_crm(const Rulebook& rulebook) {
  std::vector<std::string_view> captions;
  if (rulebook.asks_owners) return captions;
  for (const Section& section : rulebook.sections) {
    const bool granted = std::ranges::any_of(rulebook.products, [&](const Product& product) {
      const auto rights = product.rights.find(section.id);
      return rights != product.rights.end() && rights->second != 0 && is_available(rulebook, product);
    });
    if (granted && !section.own_organization.empty()) captions.push_back(section.caption);
  }
  return captions;
}

Owner owner_for(const identity::Principal& caller, const ObjectUse& use,
                const std::optional<std::string>& account) {
  if (use.record.empty()) return Owner::unknown;
  if (caller.account.empty()) return Owner::other;
  const std::string_view named = catalogue::read_creatio_record(use.record).owner;
  if (named.empty() && !account) return Owner::unknown;
  return (named.empty() ? *account : named) == caller.account ? Owner::own : Owner::other;
}

Policy::Policy(std::shared_ptr<const Rulebook> rulebook)
    : rulebook_(std::move(rulebook)), index_(std::make_shared<const Index>(*rulebook_)) {}

ResolvedUse Policy::resolve(const ObjectUse& use) const {
  ResolvedUse resolved{"", use.operation, Role::none};
  if (const Index::Place* place = index_->find(use.object)) {
    resolved.role = place->role;
    if (place->section == Index::kNoSection) return resolved;
    resolved.section = index_->sections[place->section].id;
    resolved.section_operation = section_operation(place->role, place->custom_root, use.operation);
  } else if (index_->has_custom_prefix(use.object)) {
    resolved.role = Role::custom;
    resolved.section = "custom:" + use.object;
    resolved.section_operation = section_operation(Role::custom, true, use.operation);
  }
  return resolved;
}

Policy::Holding Policy::holding(const identity::Principal& principal) const {
  const ProductSet named = index_->products_of(principal.licenses);
  return {.named = named, .available = named & index_->available};
}

Rights Policy::rights_in(const Product& product, std::string_view section) const {
  const auto at = static_cast<std::size_t>(&product - rulebook_->products.data());
  for (const Index::Target& target : index_->sections)
    if (target.id == section) return target.rights[at];
  return 0;
}

namespace {

// Parts of a request; the first ones, which nearly all requests have no more than, take no memory of their own.
class PartSet {
 public:
  // False: it was in already.
  bool add(std::uint32_t part) {
    if (part < 64) {
      const std::uint64_t bit = std::uint64_t{1} << part, before = std::exchange(first_, first_ | bit);
      return (before & bit) == 0;
    }
    if (others_.size() <= part) others_.resize(part + 1);
    if (others_[part]) return false;
    return others_[part] = true;
  }

 private:
  std::uint64_t first_ = 0;
  std::vector<bool> others_;
};

// One use judged: what it counts as, and whether it is granted.
struct Judgement {
  Unit unit;
  bool licensed = false;  // on a licensed object
  ProductSet seat = 0;    // the product that grants it, when its users need a seat
  Reason reason = Reason::ok;
  std::string detail;
};

}  // namespace

struct Policy::Judge {
  const Rulebook& rulebook;
  const Index& index;
  const identity::Principal& principal;
  Granted granted;
  bool bound;  // false for staff: everything is granted

  Judgement judge(const ObjectUse& use, Owner owner) const {
    Judgement out{{use.object, use.operation, "", ""}, false, 0, Reason::ok, {}};
    if (index.everything_licensed) {
      if (const Index::Place* place = index.find(use.object)) out.unit.object = place->canonical;
      out.licensed = true;
      return out;
    }
    const Index::Place* place = index.find(use.object);
    const bool out_of_place = place != nullptr && place->role == Role::detail && use.via != Via::nav;
    if (rulebook.unlisted_denied && (place == nullptr || out_of_place)) return unlisted(use, std::move(out));
    if (place == nullptr && index.has_custom_prefix(use.object)) return unlisted_custom(use, std::move(out));
    if (place == nullptr || place->section == Index::kNoSection) {  // step 4: free
      if (leads_astray(use, true)) return astray(use, std::move(out));
      return out;
    }
    const Index::Target& target = index.sections[place->section];
    out.licensed = true;
    out.unit.object = place->canonical;
    out.unit.section = target.id;
    if (bound) grant(use, *place, target, out);
    if (out.reason == Reason::ok && leads_astray(use, false)) return astray(use, std::move(out));
    if (bound && out.reason == Reason::ok && target.own_organization && !use.record.empty()) [[unlikely]]
      check_owner(use, *place, target, owner, out);
    return out;
  }

  // The path goes on from the record to what may be another object, and that is not for this user.
  bool leads_astray(const ObjectUse& use, bool free) const {
    if (!bound || use.beyond == catalogue::Beyond::nothing) return false;
    const bool writes = use.operation != Operation::read;
    if (use.beyond == catalogue::Beyond::object) return free || writes;
    return free && (writes || rulebook.unknown_denied);
  }
  Judgement astray(const ObjectUse& use, Judgement&& out) const {
    out.licensed = true;
    out.reason = Reason::section_not_licensed;
    out.detail = fmt::format(
        "The address goes on from {} by a name that the licence rules do not know: what it "
        "leads to may be an object that is not part of {}",
        shown(use.object), granted.titles());
    return std::move(out);
  }

  // An object that the rulebook does not know, where that denies it.
  Judgement unlisted(const ObjectUse& use, Judgement&& out) const {
    if (!bound) return std::move(out);
    out.licensed = true;
    out.unit.section = "unlisted";
    out.reason = Reason::section_not_licensed;
    out.detail = fmt::format("{} is not part of {}: {} {}", shown(use.object), granted.titles(),
                             granted.several() ? "they cover" : "it covers", sections_text());
    return std::move(out);
  }

  // An object with the portal's own prefix that belongs to no listed section.
  Judgement unlisted_custom(const ObjectUse& use, Judgement&& out) const {
    out.licensed = true;
    out.unit.section = "custom";
    if (!bound) return std::move(out);
    if (use.operation == Operation::remove) {
      out.reason = Reason::operation_not_licensed;
      out.detail =
          fmt::format("Delete on {} (custom section) is not part of {}", shown(use.object), granted.titles());
    } else {
      out.reason = Reason::custom_section_limit;
      out.detail = custom_limit_text(granted, shown(use.object));
    }
    return std::move(out);
  }

  // Steps 4 to 6 for a section: sets the product that grants the use, or the reason against it.
  void grant(const ObjectUse& use, const Index::Place& place, const Index::Target& target,
             Judgement& out) const {
    Operation operation = section_operation(place.role, place.custom_root, use.operation);
    Rights all = 0;
    granted.each([&](std::size_t i, const Product& product) {
      all |= target.rights[i];
      if ((target.rights[i] & right(operation)) == 0) return;
      const ProductSet seat = index.capped & (ProductSet{1} << i);
      if (!out.unit.product.empty() && (out.seat == 0 || seat != 0)) return;
      out.unit.product = product.id;
      out.seat = seat;
    });
    if (!out.unit.product.empty()) return;
    std::string what = target.custom_number != 0
                           ? fmt::format("{} (custom section {})", place.canonical, target.caption)
                           : fmt::format("{} (section {})", place.canonical, target.caption);
    if (target.custom_number != 0 && all == 0 && operation != Operation::remove) {
      out.reason = Reason::custom_section_limit;
      out.detail = custom_limit_text(granted, place.canonical);
    } else if (target.custom_number == 0 && all == 0) {
      out.reason = Reason::section_not_licensed;
      out.detail = fmt::format("{} is not part of {}: {} {}", what, granted.titles(),
                               granted.several() ? "they cover" : "it covers", sections_text());
    } else {
      out.reason = Reason::operation_not_licensed;
      out.detail =
          fmt::format("{} on {} is not part of {}: {} {}", verb(use.operation), what, granted.titles(),
                      granted.several() ? "they grant" : "it grants", rights_text(all));
    }
  }

  // Of a single record in a section of one's own organization only.
  void check_owner(const ObjectUse& use, const Index::Place& place, const Index::Target& target, Owner owner,
                   Judgement& out) const {
    if (owner == Owner::own) return;
    out.reason = Reason::operation_not_licensed;
    out.detail = fmt::format(
        "{} on {} (section {}): only the records of the user's own organization are licensed, and {}",
        verb(use.operation), place.canonical, target.caption,
        principal.account.empty() ? "it is not known which account that is"
        : owner == Owner::other   ? "this is another's"
                                  : "it could not be found out whose this one is");
  }

  std::string sections_text() const {
    std::vector<std::string_view> captions;
    for (const Index::Target& target : index.sections) {
      bool any = false;
      granted.each([&](std::size_t i, const Product&) { any = any || target.rights[i] != 0; });
      if (any) captions.push_back(target.caption);
    }
    return captions.empty() ? "no section" : fmt::format("{}", fmt::join(captions, ", "));
  }
};

std::string Policy::unavailable_text(std::uint32_t products) const {
  Granted named{*rulebook_, products};
  std::vector<std::string> with;
  named.each([&](std::size_t, const Product& product) {
    for (const std::string& id : product.available_with)
      if (std::ranges::find(with, id) == with.end()) with.push_back(id);
  });
  return fmt::format("{} {} available only with {}; this installation has {}", named.titles(),
                     named.several() ? "are" : "is", fmt::join(with, ", "),
                     rulebook_->main_products.empty()
                         ? std::string("no main product configured")
                         : fmt::format("{}", fmt::join(rulebook_->main_products, ", ")));
}

namespace {

// The One-Step that a call runs, by its whole key or the part behind "Id:"; one that nobody declared alters data.
OneStepEffect one_step_of(const Rulebook& rulebook, const std::string& key) {
  const std::string lower = to_lower(key);
  auto found = rulebook.one_steps.find(lower);
  const std::size_t id = lower.rfind("id:");
  if (found == rulebook.one_steps.end() && id != lower.npos) {
    const std::string part = lower.substr(id + 3);
    found = rulebook.one_steps.find(part.substr(0, part.find('#')));
  }
  return found == rulebook.one_steps.end() ? OneStepEffect{} : found->second;
}

unsigned action_of(const ObjectUse& use) {
  if (use.via == Via::process || use.operation == Operation::execute) return kOneStep;
  switch (use.operation) {
    case Operation::read:
      return kView;
    case Operation::create:
      return kCreate;
    case Operation::edit:
    case Operation::remove:
    case Operation::execute:
      break;
  }
  return kEdit;
}

// What is made is its maker's; what no record is named of, the CRM chooses among those that the user may see.
bool is_own(const ObjectUse& use, Owner owner) {
  if (action_of(use) != kOneStep &&
      (use.operation == Operation::create || (use.operation == Operation::read && use.record.empty())))
    return true;
  return owner == Owner::own;
}

std::string refusal_text(Outcome outcome, const ObjectUse& use) {
  const std::string what = fmt::format("{} on {}", verb(use.operation), shown(use.object));
  if (outcome == Outcome::denied_rights)
    return fmt::format("{}: the record is somebody else's, and you have no security right on it", what);
  return fmt::format(
      "{}: you cannot edit this record: that takes a licence, and you have no right to take one", what);
}

}  // namespace

Decision Policy::decide_by_table(const identity::Principal& principal, const Classification& classification,
                                 std::span<const Owner> owners, Decision decision) const {
  const Rulebook& rulebook = *rulebook_;
  const bool bound = !principal.is_staff();
  Facts facts{};
  set(facts, Input::site_always_uses_licence,
      !principal.site.empty() &&
          std::ranges::find(rulebook.always_use_sites, principal.site) != rulebook.always_use_sites.end());
  set(facts, Input::has_security_right, principal.security_right.value_or(rulebook.security_right_default));
  set(facts, Input::may_consume_licence,
      principal.consume_license.value_or(rulebook.consume_license_default));
  set(facts, Input::always_site_view, rulebook.always_site_view_free);
  const OneStepEffect step =
      classification.process.empty() ? OneStepEffect{} : one_step_of(rulebook, classification.process);
  set(facts, Input::one_step_alters_data, step.alters_data);
  set(facts, Input::one_step_kind, step.kind);
  set(facts, Input::rating_field_configured, step.rating_field);

  // A journal entry that is saved directly is as if a One-Step made it, where the operator says so.
  const bool journal_entry =
      !classification.makes_related.empty() &&
      std::ranges::find(rulebook.journal_objects, to_lower(classification.makes_related)) !=
          rulebook.journal_objects.end();
  if (journal_entry) set(facts, Input::one_step_kind, kJournalEntry);
  const auto ask = [&](const ObjectUse& use, Owner owner) {
    set(facts, Input::action, journal_entry ? kOneStep : action_of(use));
    set(facts, Input::record, is_own(use, owner) ? kOwn : kOther);
    const DecisionRow* row = first_row(rulebook.decisions, facts);
    const Outcome outcome = row == nullptr ? Outcome::denied_rights : row->outcome;
    if (outcome == Outcome::consumes) decision.consumes = true;
    if (outcome == Outcome::free || outcome == Outcome::consumes || decision.reason != Reason::ok) return;
    decision.reason =
        outcome == Outcome::denied_rights ? Reason::operation_not_licensed : Reason::license_required;
    decision.detail = refusal_text(outcome, use);
    if (use.in_batch) decision.detail = fmt::format("batch[{}]: {}", use.part, decision.detail);
  };
  PartSet counted;
  for (std::size_t i = 0; i < classification.uses.size(); ++i) {
    const ObjectUse& use = classification.uses[i];
    if (bound) ask(use, i < owners.size() ? owners[i] : Owner::unknown);
    if (!classification.counted || classification.kind != Kind::objects || !counted.add(use.part)) continue;
    const Index::Place* place = index_->find(use.object);
    const bool in_section = place != nullptr && place->section != Index::kNoSection;
    decision.units.push_back(
        {place == nullptr ? std::string_view(use.object) : std::string_view(place->canonical), use.operation,
         in_section ? std::string_view(index_->sections[place->section].id) : "", ""});
  }
  if (classification.uses.empty() && bound) ask(ObjectUse{}, Owner::own);
  decision.consumes = decision.consumes && decision.reason == Reason::ok;
  decision.metered = decision.reason == Reason::ok && !decision.units.empty() && bound;
  return decision;
}

Decision Policy::decide(const identity::Principal& principal, const Classification& classification,
                        Decision memory, std::span<const Owner> owners) const {
  Decision decision;
  memory.units.clear();
  decision.units = std::move(memory.units);
  const Kind kind = classification.kind;
  const bool everything = index_->everything_licensed;
  if (kind == Kind::asset || kind == Kind::authentication || kind == Kind::foreign || kind == Kind::reject)
    return decision;
  if (by_table()) {
    if (kind != Kind::objects && kind != Kind::unknown) return decision;
    return decide_by_table(principal, classification, owners, std::move(decision));
  }

  Judge judge{*rulebook_, *index_, principal, {*rulebook_, 0}, !principal.is_staff() && !everything};
  if (judge.bound) {
    ProductSet named = index_->products_of(principal.licenses);
    judge.granted.products = named & index_->available;
    if (named == 0) {
      decision.reason = Reason::license_missing;
      decision.detail = principal.licenses.empty() ? "The user has no portal licence"
                                                   : "None of the user's licences is a portal licence";
    } else if (judge.granted.products == 0) {
      decision.reason = Reason::product_unavailable;
      decision.detail = unavailable_text(named);
    }
  }
  if (kind == Kind::seat && judge.bound && decision.reason == Reason::ok) {
    decision.reason = Reason::operation_not_licensed;
    decision.detail = "Members of a portal are invited and removed by staff, not by portal users";
  }
  if (kind != Kind::objects && (kind != Kind::unknown || everything)) return decision;

  if (decision.reason != Reason::ok) judge.bound = false;  // denied already: the objects are only listed
  decision.units.reserve(classification.uses.size());
  PartSet counted;
  for (std::size_t i = 0; i < classification.uses.size(); ++i) {
    const ObjectUse& use = classification.uses[i];
    if (!enforced(use)) continue;
    Judgement judgement = judge.judge(use, i < owners.size() ? owners[i] : Owner::unknown);
    if (!judgement.licensed) continue;
    if (judgement.reason != Reason::ok && decision.reason == Reason::ok) {
      decision.reason = judgement.reason;
      decision.detail =
          use.in_batch ? fmt::format("batch[{}]: {}", use.part, judgement.detail) : judgement.detail;
    }
    if (!classification.counted || kind != Kind::objects) continue;
    decision.seat_products |= judgement.seat;
    if (!counted.add(use.part)) continue;
    decision.units.push_back(judgement.unit);
  }
  decision.metered =
      decision.reason == Reason::ok && !decision.units.empty() && (everything || !principal.is_staff());
  return decision;
}

}  // namespace tollgate::licence

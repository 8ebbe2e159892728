// The keys below `licensing`.
#include "config/key_groups.h"

namespace tollgate::config {
namespace {

Fields describe_user_type(PortalUserType& type) {
  return {
      {"license_names", TextList{&type.license_names, Format::any, {}, 0, 100, true},
       "Names of licences that make a user one of this type, in any case. Default: the name of the type."},
      {"modules", TextListMap{&type.modules, Format::object_name, Format::any},
       "Module -> permissions: view, create, edit, delete. A module that is not listed is not licensed.",
       true},
  };
}

Fields describe_one_step(OneStep& step) {
  return {
      {"alters_data", Flag{&step.alters_data}, "Whether it alters data: one that sends an e-mail does not."},
      {"kind", Text{&step.kind, Format::any, {"normal", "journal_entry", "rating"}},
       "`journal_entry` and `rating` are free on records of others."},
      {"rating_field", Flag{&step.rating_field},
       "`rating`: a logical or numeric field is configured to hold it; without one it takes a licence."},
  };
}

Fields describe_owner_lookup(OwnerLookupSettings& lookup) {
  return {
      {"url", Text{&lookup.url, Format::web_url},
       "Of the REST API: `https://crm.example/CherwellAPI`. Empty: nobody is asked."},
      {"ca_file", Text{&lookup.ca_file, Format::input_file},
       "PEM certificates of the authorities to trust. Default: the system's store."},
      {"user", Text{&lookup.user}, "Name of an account that may view the records."},
      {"password_file", Text{&lookup.password_file, Format::input_file}, "File with its password."},
      {"client_id", Text{&lookup.client_id}, "Client id (API key) to ask for a token with."},
      {"auth_mode", Text{&lookup.auth_mode}, "`auth_mode` to ask for a token with."},
      {"timeout", Span{&lookup.timeout, 1ms, 1min},
       "Longest look-up; a call waits twice that at most, and goes on with a record of somebody else."},
  };
}

Fields describe_cherwell(CherwellLicensing& cherwell) {
  return {
      {"always_use_sites", TextList{&cherwell.always_use_sites, Format::any, {}, 0, 1'000, true},
       "Sites of the portal on which everything takes a licence."},
      {"always_site_view", Text{&cherwell.always_site_view, Format::any, {"deny", "free"}},
       "What users without the right to take a licence get when they view a record on such a site."},
      {"consume_license", Flag{&cherwell.consume_license},
       "Users of whom neither directory nor token says may take a concurrent licence."},
      {"security_right", Flag{&cherwell.security_right},
       "They may see and edit records of others. The CRM's own rights apply as well."},
      {"one_steps", named_items(&cherwell.one_steps, describe_one_step),
       "One-Step, by the part of its key behind `Id:` or its whole key -> what it does. One that is not "
       "listed alters data."},
      {"journal_objects", TextList{&cherwell.journal_objects, Format::any, {}, 0, 1'000, true},
       "Names or ids of the objects that are journals: who saves a new one below a record of somebody else "
       "makes a "
       "journal entry, which is free. Without them such a save edits the record, which takes a licence."},
      {"owner_fields", TextList{&cherwell.owner_fields, Format::any, {}, 1, 100, true},
       "Name or id of the fields that hold the requester of a record: the user's name or his `customer`."},
      {"records", Number{&cherwell.records, 100, 100'000'000},
       "Records whose requester this proxy remembers, 300 bytes each; of others it is not known. Changes "
       "with a restart."},
      {"record_age", Span{&cherwell.record_age, 1s, kDay},
       "How long a requester is believed to stay the same."},
      {"lookup", Group{describe_owner_lookup(cherwell.lookup)},
       "Asks the CRM whose a record is when no reply has told, and the decision hangs on it."},
  };
}

Fields describe_creatio(CreatioLicensing& creatio) {
  return {
      {"records", Number{&creatio.records, 100, 100'000'000},
       "Records whose owner this proxy remembers, 300 bytes each. Changes with a restart."},
      {"record_age", Span{&creatio.record_age, 1s, kDay}, "How long an owner is believed to stay the same."},
      {"lookup",
       Group{describe_creatio_access(
           creatio.lookup,
           "Service account that logs in with forms, and may read the records of these sections.",
           "Longest look-up, log-in included; a call waits twice that at most, and "
           "is refused without an answer.")},
       "Asks the CRM whose a record is that a portal user names. Without it that check is left to the CRM."},
  };
}

Fields describe_concurrent_seats(ConcurrentSeats& seats) {
  return {
      {"capacity", Number{&seats.capacity, 0, 10'000'000}, "Portal users at once; 0: no limit."},
      {"idle", Span{&seats.idle, 2s, kDay},
       "How long a seat outlives its holder's last call. At least twice `licensing.seat_lease`."},
  };
}

Fields describe_portal_seats(PortalSeatSettings& seats) {
  return {
      {"purchased", Number{&seats.purchased, 0, 100'000'000},
       "Portal licences that were bought; they include the free ones."},
      {"client_users_at_release", Number{&seats.client_users_at_release, 0, 100'000'000},
       "Active Client Portal users when Zoho's terms changed. More than the free ones: that many stay free."},
      {"client_user_types", TextList{&seats.client_user_types, Format::any, {}, 0, 100, true},
       "Ids of the user types of the Client Portal. Only these may use what `client_users_at_release` adds. "
       "Empty: every type may."},
  };
}

Fields describe_price(LicensePrice& price) {
  return {
      {"minor_units", Number{&price.minor_units, 0, 1'000'000'000'000},
       "Price of one unit in minor units of the currency: 7000 of USD are 70.00 USD.", true},
      {"currency", Text{&price.currency, Format::any, {}, false}, "ISO 4217: USD, EUR.", true},
      {"per", Text{&price.per, Format::any, {"user", "named_seat", "concurrent_seat", "call"}},
       "What is counted: users with a call in the period, the most seats held at once in it, or calls."},
      {"every", Text{&price.every, Format::any, {"year", "month"}},
       "For how long one unit is paid. Calls are paid once."},
      {"included", Number{&price.included, 0, 1'000'000'000'000},
       "Units of the whole installation that cost nothing. Default: none; of `portal_users` those that Zoho "
       "leaves free."},
      {"source", Text{&price.source}, "Where the price is from; stands in the billing file."},
      {"as_of", Text{&price.as_of}, "The date of that."},
  };
}

}  // namespace

Fields describe_licensing(Licensing& licensing) {
  return {
      {"system", Text{&licensing.system, Format::any, system_names()},
       "Whose licence rules apply. `none`: every recognised object is licensed and nothing is denied."},
      {"edition", Text{&licensing.edition},
       "Which of the vendor's documents applies where they disagree: `bpmonline_7` (the licence sheet) or "
       "`creatio_8_0` (the "
       "partner portal guide: the partner portal has neither Documents nor Marketing activities). Default: "
       "`bpmonline_7` for "
       "`bpmonline`, `creatio_8_0` for `creatio_partner`."},
      {"main_products", TextList{&licensing.main_products, Format::any, {}, 0, 100, true},
       "Main products that the customer owns, by id or name; portal products are available with some of them "
       "only. Ids "
       "of `bpmonline` and `creatio_partner`: studio, sales, sales_enterprise, marketing, customer_center, "
       "service_enterprise, bank_customer_journey, crm_bundle; of `zoho` (the CRM's edition): free, "
       "standard, professional, "
       "enterprise, ultimate, trial."},
      {"main_product_users", Number{&licensing.main_product_users, 0, 100'000'000},
       "Licensed users of the main product; portal seats of some products depend on it."},
      {"directory_file", Text{&licensing.directory_file, Format::input_file},
       "CSV with the columns user, organization, license, user_type, active, certificate, for Creatio "
       "account, "
       "and for Cherwell customer, security_right, consume_license; wins over the token's claims and over "
       "`identity.directory.sync`."},
      {"rules_file", Text{&licensing.rules_file, Format::input_file},
       "A rulebook of one's own instead of the built-in one of `system`."},
      {"user_types", named_items(&licensing.user_types, describe_user_type),
       "`zoho`: portal user type -> what its users may do. A user is of the types that his licences name."},
      {"portal_seats", Group{describe_portal_seats(licensing.portal_seats)},
       "`zoho`: how many portal users there may be. See licences.md."},
      {"cherwell", Group{describe_cherwell(licensing.cherwell)},
       "`cherwell`: circumstances of its licence rules that no call tells. See licences.md."},
      {"creatio", Group{describe_creatio(licensing.creatio)},
       "`bpmonline`, `creatio_partner`: sections that are open for the user's own organization only (the "
       "partner "
       "program). See licences.md."},
      {"concurrent_seats", Group{describe_concurrent_seats(licensing.concurrent_seats)},
       "How many portal users may be active at once; with every `system`. See licences.md."},
      {"prices", named_items(&licensing.prices, describe_price),
       "Product, or pool of seats (`concurrent`, `portal_users`) -> what it costs, in place of the vendor's "
       "price in the rulebook. See billing.md."},
      {"seat_lease", Span{&licensing.seat_lease, 1s, 10min},
       "How long a proxy serves the holder of a seat without having heard of the store, and how long a store "
       "that may have forgotten concurrent seats gives out none. The same on all proxies."},
  };
}

}  // namespace tollgate::config

// The licence rules of one CRM system as plain data. Filled by config/load from a preset or a rules_file; see
// config/presets/bpmonline.yaml for the format with comments.
#pragma once
#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "metering/catalogue/classification.h"
#include "metering/catalogue/credits.h"
#include "metering/licence/decision_table.h"
#include "metering/licence/price.h"

namespace tollgate::licence {

// Bit set over catalogue::Operation.
using Rights = std::uint8_t;
constexpr Rights right(catalogue::Operation operation) {
  return static_cast<Rights>(1U << static_cast<unsigned>(operation));
}

struct Section {
  std::string id;  // "cases"
  std::string caption;
  std::string entity;                 // root object
  std::vector<std::string> views;     // read in place of the root
  std::vector<std::string> children;  // a write on them is an edit of the section, a read a read
  std::vector<std::string> lookups;   // known, in no section: free
  std::vector<std::string> feed;      // basic functions: free
  // Column with the Account that owns a record of the root or of a view ("PartnerId"): portal users have the section for
  // their own organization's records alone. "": for all that the CRM shows them.
  std::string own_organization{};
};

// Pools of seats that belong to no product.
inline constexpr std::string_view kConcurrentPool = "concurrent";  // licensing.concurrent_seats
inline constexpr std::string_view kPortalPool = "portal_users";    // Rulebook::portal_seats

// How many users may have seats of a product, as its licence says. What is 0 caps nothing.
struct SeatCap {
  std::uint32_t max = 0;                    // users
  std::uint32_t per_main_product_user = 0;  // users for each licensed user of the main product
};

// Portal users of Zoho, of all user types together: so many free ones, and what the organisation has (Zoho's notice on portal
// licences). Licences that were bought include the free ones, of which the next cycle charges none.
struct PortalSeats {
  std::uint32_t free = 0;  // of every organisation; 0: this system has no such seats
  // From the operator's settings: Client Portal users that were active when these terms came, and licences bought.
  std::uint32_t client_users_at_release = 0, purchased = 0;

  // More Client Portal users than there are free ones stay free, as many as there were that day.
  std::uint32_t free_allowance() const { return std::max(free, client_users_at_release); }
  std::uint32_t capacity() const { return std::max(free_allowance(), purchased); }
  // For who is not a Client Portal user: theirs alone stay free beyond `free`.
  std::uint32_t capacity_of_others() const { return std::max(free, purchased); }
};

struct Product {
  std::string id;                           // "customer"
  std::string title;                        // "Customer Portal"
  std::vector<std::string> name_patterns;   // regular expressions, ECMAScript, searched without case
  std::vector<std::string> available_with;  // main product ids; "ALL"
  std::map<std::string, Rights> rights;     // section id -> operations
  std::uint32_t custom_sections_max = 0;
  Rights custom_section_rights = 0;
  std::optional<SeatCap>
      seats;  // named seats (metering/seats/pool.h); none: as many users as hold the licence
};

// Another public document about the same products: rights in place of those in Product, by product and section.
struct Edition {
  std::string id;                                               // "creatio_8_0"
  std::map<std::string, std::map<std::string, Rights>> rights;  // product id -> all its rights
};

// What the customer owns and a portal product is available with.
struct MainProduct {
  std::string id;                  // "service_enterprise"
  std::vector<std::string> names;  // as contracts and licences spell it
};

// What a One-Step does, as the operator says.
struct OneStepEffect {
  bool alters_data = true;
  std::uint8_t kind = 0;  // index into values_of(Input::one_step_kind)
  bool rating_field = false;
};

struct Rulebook {
  std::string system;  // "bpmonline"; "none": every recognised object is licensed, nothing is denied
  std::vector<MainProduct> known_main_products;
  std::vector<Price> prices;  // of products and pools; one that is not here has none that is known
  std::vector<Section> sections;
  std::vector<Product> products;
  std::string edition;                     // the document that the rights of `products` follow
  std::vector<Edition> editions;           // the others
  std::vector<std::string> known_objects;  // spelled canonically, in no section
  // Parts of a record that are reached through it only (Zoho's Attachments, Notes): free there. By themselves they are like
  // an object that is not listed.
  std::vector<std::string> details;
  std::vector<std::string>
      user_types_with;           // main products that the operator's own portal user types need (Zoho)
  bool unlisted_denied = false;  // an object that is not listed is refused, not free
  std::map<std::string, std::string> uids;       // schema UId -> object
  std::map<std::string, std::string> relations;  // "Object.Column" or "*.Column" -> object
  // Not empty: every object is licensed, and these rows say what a call on it takes. There are no products then.
  std::vector<DecisionRow> decisions;
  // From the operator's settings:
  bool unknown_denied = false;  // what cannot be told from a request is refused (catalogue.allow_unknown)
  // Whose single records are can be found out, so that Section::own_organization is enforced; else that is left to the
  // CRM.
  bool asks_owners = false;
  std::vector<std::string> always_use_sites;  // folded (identity::session_user)
  bool always_site_view_free = false, security_right_default = true, consume_license_default = true;
  std::vector<std::string> journal_objects;  // lower case: who makes one below a record makes a journal entry
  std::map<std::string, OneStepEffect> one_steps;  // lower-case key, or its part behind "Id:"
  std::vector<std::string> main_products;
  PortalSeats portal_seats;
  std::optional<catalogue::CreditTable> credits;  // what the vendor counts calls as; nullopt: it does not
  std::uint32_t main_product_users = 0;           // 0: not stated, so that only SeatCap::max caps
  // Permitted roots, at most 3. {Root}File, InFolder, Folder, InTag, Tag and Visa are details of their root unless they
  // are listed elsewhere.
  std::vector<std::string> custom_sections;
  std::map<std::string, std::vector<std::string>> custom_children;
  std::vector<std::string> custom_prefixes;
  std::vector<std::string> unlicensed_objects;
};

// Users that may have a seat of the product: the least of what its cap says. nullopt: no cap, or none that is known.
std::optional<std::uint64_t> seat_capacity(const Rulebook& rulebook, const Product& product);

// Is the product available with one of the owned main products?
bool is_available(const Rulebook& rulebook, const Product& product);

// Captions of the sections of one's own organization only that an available product grants, where nobody is asked whose
// their records are.
std::vector<std::string_view> sections_left_to_crm(const Rulebook& rulebook);

}  // namespace tollgate::licence

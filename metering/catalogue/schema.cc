#include "metering/catalogue/schema.h"

#include <array>

#include "metering/base/ascii.h"

namespace tollgate::catalogue {
namespace {

// A look-up key built on the stack, so that a look-up costs no allocation.
class Key {
 public:
  Key& add(std::string_view text) {
    for (char c : text) push(ascii_lower(c));
    return *this;
  }
  Key& add_uid(std::string_view uid) {
    for (char c : uid)
      if (c != '-' && c != '{' && c != '}') push(ascii_lower(c));
    return *this;
  }
  bool fits() const { return !overflow_; }
  std::string_view view() const { return {bytes_.data(), size_}; }

 private:
  void push(char c) {
    if (size_ == bytes_.size())
      overflow_ = true;
    else
      bytes_[size_++] = c;
  }
  std::array<char, 260> bytes_;
  std::size_t size_ = 0;
  bool overflow_ = false;
};

template <class Map>
const typename Map::mapped_type* find(const Map& map, const Key& key) {
  if (!key.fits()) return nullptr;
  auto it = map.find(key.view());
  return it == map.end() ? nullptr : &it->second;
}
std::optional<std::string_view> as_view(const std::string* text) {
  if (!text) return std::nullopt;
  return std::string_view(*text);
}

}  // namespace

void Schema::add_object(std::string_view canonical) {
  canonical_.insert_or_assign(to_lower(canonical), std::string(canonical));
}

void Schema::add_uid(std::string_view uid, std::string_view object) {
  add_object(object);
  uids_.insert_or_assign(std::string(Key().add_uid(uid).view()), std::string(object));
}

void Schema::add_relation(std::string_view object, std::string_view column, std::string_view target) {
  relations_.insert_or_assign(to_lower(object) + "." + to_lower(column), std::string(target));
}

void Schema::add_process(std::string_view process, std::vector<Effect> effects) {
  processes_.insert_or_assign(to_lower(process), std::move(effects));
}

void Schema::add_owned(std::string_view object, std::string_view column) {
  owned_.insert_or_assign(to_lower(object), std::string(column));
}

std::optional<std::string_view> Schema::canonical(std::string_view object) const {
  return as_view(find(canonical_, Key().add(object)));
}

std::optional<std::string_view> Schema::object_of_uid(std::string_view uid) const {
  return as_view(find(uids_, Key().add_uid(uid)));
}

std::optional<std::string_view> Schema::relation(std::string_view object, std::string_view column) const {
  if (auto* declared = find(relations_, Key().add(object).add(".").add(column))) return as_view(declared);
  if (auto* declared = find(relations_, Key().add("*.").add(column))) return as_view(declared);
  // Opportunity.Contact is the Contact, although a detail named OpportunityContact exists.
  if (auto plain = canonical(column)) return plain;
  return as_view(find(canonical_, Key().add(object).add(column)));
}

const std::vector<Schema::Effect>* Schema::process(std::string_view process) const {
  return find(processes_, Key().add(process));
}

const std::string* Schema::find_owned(std::string_view object) const {
  return find(owned_, Key().add(object));
}

}  // namespace tollgate::catalogue

// OData query options, read only for the related objects they reach (OASIS OData 4.01 part 2, section 5). Nothing
// here decides what is licensed: the CRM's own rights apply to related objects; we report them.
//
//   $expand=Account($expand=Owner;$select=Name)   Account expand, Contact expand (Account.Owner -> Contact)
//   $filter=Account/Owner/Name eq 'x/y'           Account filter, Contact filter; literals are skipped
//   $filter=CaseFileCollectionByCase/any(f:f/Name eq 'a')   CaseFile filter
#include <array>

#include "metering/base/ascii.h"
#include "metering/catalogue/creatio.h"

namespace tollgate::catalogue::creatio {
namespace {

constexpr int kExpandDepthMax = 16;

bool is_path_char(char c) {
  return is_alpha(c) || is_digit(c) || c == '_' || c == '/' || c == '.' || c == '@' || c == '$';
}

// Walks text and cuts it at `separator` outside of quotes and parentheses. False: they do not close.
template <class OnItem>
bool for_each_item(std::string_view text, char separator, OnItem&& on_item) {
  int depth = 0;
  bool quoted = false;
  std::size_t begin = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    char c = text[i];
    if (c == '\'') quoted = !quoted;
    if (quoted) continue;
    if (c == '(') ++depth;
    if (c == ')' && --depth < 0) return false;
    if (c == separator && depth == 0) {
      if (!on_item(text.substr(begin, i - begin))) return false;
      begin = i + 1;
    }
  }
  return depth == 0 && !quoted && on_item(text.substr(begin));
}

class QueryReader {
 public:
  QueryReader(const Schema& schema, const ObjectUse& model, std::vector<ObjectUse>& uses)
      : schema_(schema), model_(model), uses_(uses) {}

  bool expand(std::string_view object, std::string_view list, int depth);
  void expression(std::string_view object, std::string_view text);
  bool option(std::string_view object, std::string_view name, std::string_view value, int depth);

 private:
  struct Variable {
    std::string_view name;
    std::string object;
  };
  std::string_view walk(std::string_view object, std::string_view path, Via via, bool last_too);
  const std::string* variable(std::string_view name) const;

  const Schema& schema_;
  const ObjectUse& model_;
  std::vector<ObjectUse>& uses_;
  std::array<Variable, 8> variables_;
  std::size_t variable_count_ = 0;
  std::string current_;
};

const std::string* QueryReader::variable(std::string_view name) const {
  for (std::size_t i = variable_count_; i-- > 0;)
    if (variables_[i].name == name) return &variables_[i].object;
  return nullptr;
}

// Follows a path from object and reports each related object; returns the object it ends at ("" when not known).
std::string_view QueryReader::walk(std::string_view object, std::string_view path, Via via, bool last_too) {
  current_ = object;
  bool first = true;
  while (!path.empty()) {
    std::size_t slash = path.find('/');
    std::string_view name = trim(path.substr(0, slash));
    bool last = slash == path.npos;
    path.remove_prefix(last ? path.size() : slash + 1);
    if (first) {
      first = false;
      if (auto* bound = variable(name)) {
        current_ = *bound;
        continue;
      }
      if (name == "$it" || name == "$this") continue;
      if (name == "$root") {
        current_.clear();
        continue;
      }
    }
    // Casts and system segments keep the object; any() and all() range over it.
    if (name.find('.') != name.npos || name.starts_with('$')) continue;
    if (equals_ignore_case(name, "any") || equals_ignore_case(name, "all")) continue;
    if (last && !last_too) break;
    auto next = navigation(schema_, current_, name);
    if (!next) {
      current_.clear();
      break;
    }
    current_ = next->object;
    append_once(uses_, current_, via, model_);
  }
  return current_;
}

bool QueryReader::expand(std::string_view object, std::string_view list, int depth) {
  if (depth > kExpandDepthMax) return false;
  return for_each_item(list, ',', [&](std::string_view item) {
    item = trim(item);
    std::size_t open = item.find('(');
    std::string target(walk(object, item.substr(0, open), Via::expand, true));
    if (open == item.npos) return true;
    if (item.back() != ')') return false;
    return for_each_item(item.substr(open + 1, item.size() - open - 2), ';', [&](std::string_view pair) {
      std::size_t equals = pair.find('=');
      if (equals == pair.npos) return true;
      return option(target, trim(pair.substr(0, equals)), pair.substr(equals + 1), depth);
    });
  });
}

void QueryReader::expression(std::string_view object, std::string_view text) {
  variable_count_ = 0;
  for (std::size_t i = 0; i < text.size();) {
    char c = text[i];
    if (c == '\'') {
      std::size_t end = text.find('\'', i + 1);
      i = end == text.npos ? text.size() : end + 1;
      continue;
    }
    if (!is_alpha(c) && c != '_' && c != '$' && c != '@') {
      // Numbers, dates and GUIDs are skipped whole, so that their letters are not read as names.
      if (is_digit(c))
        while (i < text.size() && (is_path_char(text[i]) || text[i] == '-' || text[i] == ':')) ++i;
      else
        ++i;
      continue;
    }
    std::size_t end = i;
    while (end < text.size() && is_path_char(text[end])) ++end;
    std::string_view path = text.substr(i, end - i);
    i = end;
    std::string_view range = path.substr(path.rfind('/') + 1);
    bool lambda = path.find('/') != path.npos && i < text.size() && text[i] == '(' &&
                  (equals_ignore_case(range, "any") || equals_ignore_case(range, "all"));
    if (path.find('/') == path.npos) continue;
    std::string_view reached = walk(object, path, Via::filter, false);
    if (!lambda) continue;
    // any(x: ...): x stands for an entity of the collection.
    std::size_t colon = text.find(':', i);
    if (colon == text.npos || variable_count_ == variables_.size()) continue;
    std::string_view name = trim(text.substr(i + 1, colon - i - 1));
    if (!is_identifier(name)) continue;
    variables_[variable_count_++] = {name, std::string(reached)};
    i = colon + 1;
  }
}

// False: malformed. Options may lack their '$' (OData 4.01) and names are matched without case.
bool QueryReader::option(std::string_view object, std::string_view name, std::string_view value, int depth) {
  if (name.starts_with('$')) name.remove_prefix(1);
  if (equals_ignore_case(name, "expand")) return expand(object, value, depth + 1);
  if (equals_ignore_case(name, "select"))
    return for_each_item(value, ',', [&](std::string_view item) {
      item = trim(item);
      std::size_t open = item.find('(');
      walk(object, item.substr(0, open), Via::expand, false);
      return true;
    });
  if (equals_ignore_case(name, "filter") || equals_ignore_case(name, "orderby") ||
      equals_ignore_case(name, "apply") || equals_ignore_case(name, "compute") || name.starts_with('@'))
    expression(object, value);
  return true;
}

// Bit of a system query option that may occur once (OData 4.01 part 2, 5.1), or 0.
unsigned option_bit(std::string_view name) {
  static constexpr std::string_view kNames[] = {"expand", "filter",  "select", "orderby",
                                                "apply",  "compute", "top",    "skip",
                                                "count",  "search",  "format", "inlinecount"};
  if (!name.starts_with('$')) return 0;
  for (unsigned i = 0; i < std::size(kNames); ++i)
    if (equals_ignore_case(name.substr(1), kNames[i])) return 1U << i;
  return 0;
}

}  // namespace

std::optional<Navigation> navigation(const Schema& schema, std::string_view object, std::string_view name) {
  if (!is_identifier(name)) return std::nullopt;
  static constexpr std::string_view kMark = "collectionby";
  for (std::size_t i = 1; i + kMark.size() < name.size(); ++i) {
    if (!equals_ignore_case(name.substr(i, kMark.size()), kMark)) continue;
    std::string_view child = name.substr(0, i);
    return Navigation{std::string(schema.canonical(child).value_or(child)), true};
  }
  if (auto target = schema.relation(object, name)) return Navigation{std::string(*target), false};
  static constexpr std::string_view kSuffix = "collection";
  if (name.size() > kSuffix.size() && equals_ignore_case(name.substr(name.size() - kSuffix.size()), kSuffix))
    if (auto target = schema.canonical(name.substr(0, name.size() - kSuffix.size())))
      return Navigation{std::string(*target), true};
  return std::nullopt;
}

void append_once(std::vector<ObjectUse>& uses, std::string_view object, Via via, const ObjectUse& model) {
  static constexpr std::size_t kRelatedMax = 64;
  std::size_t related = 0;
  for (std::size_t i = uses.size(); i-- > 0 && uses[i].part == model.part;)
    if ((uses[i].via == via && uses[i].object == object) || ++related == kRelatedMax) return;
  uses.push_back({std::string(object), Operation::read, via, model.part, model.in_batch});
}

const char* report_query(const Schema& schema, std::string_view object, std::string_view query,
                         const ObjectUse& model, std::vector<ObjectUse>& uses) {
  if (query.empty()) return nullptr;
  QueryReader reader(schema, model, uses);
  QueryCursor cursor(query);
  unsigned seen = 0;
  while (cursor.next()) {
    std::string_view name = trim(cursor.name());
    unsigned bit = option_bit(name);
    if (seen & bit) return "a query option occurs twice";
    seen |= bit;
    if (!reader.option(object, name, cursor.value(), 0)) return "$expand or $select does not close";
  }
  return nullptr;
}

}  // namespace tollgate::catalogue::creatio

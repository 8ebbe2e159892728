#include <algorithm>

#include "metering/base/ascii.h"
#include "metering/catalogue/dialect.h"
#include "metering/catalogue/zoho.h"

namespace tollgate::catalogue::zoho {
namespace {

struct Token {
  enum class Kind : std::uint8_t { word, text, symbol, end, bad } kind = Kind::end;
  std::string_view text;
};

class Tokens {
 public:
  explicit Tokens(std::string_view query) : rest_(query) {}

  Token next() {
    while (!rest_.empty() && std::string_view(" \t\r\n\f\v").find(rest_.front()) != std::string_view::npos)
      rest_.remove_prefix(1);
    if (rest_.empty()) return {};
    char c = rest_.front();
    if (c == '\'' || c == '"') return quoted(c);
    if (rest_.starts_with("--") || rest_.starts_with("/*") || c == '`' || c == ';' || c == '#' || c == '\\')
      return {Token::Kind::bad, {}};
    std::size_t length = 0;
    while (length < rest_.size() && is_word_char(rest_[length])) ++length;
    return length > 0 ? take(Token::Kind::word, length) : take(Token::Kind::symbol, 1);
  }

 private:
  static bool is_word_char(char c) {
    return is_alpha(c) || is_digit(c) || c == '_' || c == '.' || c == '$' ||
           static_cast<unsigned char>(c) >= 0x80;
  }
  Token take(Token::Kind kind, std::size_t length) {
    Token token{kind, rest_.substr(0, length)};
    rest_.remove_prefix(length);
    return token;
  }
  Token quoted(char quote) {
    for (std::size_t i = 1; i < rest_.size(); ++i) {
      if (rest_[i] == '\\') {
        ++i;
      } else if (rest_[i] == quote) {
        if (i + 1 == rest_.size() || rest_[i + 1] != quote) return take(Token::Kind::text, i + 1);
        ++i;
      }
    }
    return {Token::Kind::bad, {}};
  }
  std::string_view rest_;
};

}  // namespace

std::optional<CoqlReading> read_coql(std::string_view query) {
  static constexpr std::size_t kModulesMax = 32;
  CoqlReading out;
  Tokens tokens(query);
  bool expect_module = false;  // behind FROM, JOIN or a comma of the FROM list
  bool after_module = false;
  bool first = true;
  bool in_limit = false, limited = false;
  std::uint64_t limit = 0, most = 0;
  for (Token token = tokens.next(); token.kind != Token::Kind::end; token = tokens.next()) {
    if (token.kind == Token::Kind::bad) return std::nullopt;
    bool word = token.kind == Token::Kind::word;
    if (first && (!word || !equals_ignore_case(token.text, "select"))) return std::nullopt;
    first = false;
    if (in_limit) {
      // LIMIT rows, LIMIT offset, rows
      if (const auto number = word ? parse_decimal(token.text) : std::nullopt) {
        limit = *number;
        continue;
      }
      if (token.text == ",") continue;
      in_limit = false;
    }
    if (word && equals_ignore_case(token.text, "limit")) {
      most = std::max(most, limit);
      limit = 0;
      in_limit = limited = true;
    }
    if (expect_module) {
      if (!word || !is_identifier(token.text) || out.modules.size() == kModulesMax) return std::nullopt;
      out.modules.emplace_back(token.text);
      expect_module = false;
      after_module = true;
      continue;
    }
    if (word && (equals_ignore_case(token.text, "from") || equals_ignore_case(token.text, "join"))) {
      expect_module = true;
    } else if (after_module && token.text == ",") {
      expect_module = true;
    } else if (word && (equals_ignore_case(token.text, "where") || equals_ignore_case(token.text, "group") ||
                        equals_ignore_case(token.text, "order") || equals_ignore_case(token.text, "limit"))) {
      after_module = false;
    } else if (std::size_t dot = token.text.find('.'); word && dot != token.text.npos &&
                                                       !is_digit(token.text.front()) &&
                                                       out.lookup_paths.size() < 256) {
      std::string_view tail = token.text.substr(dot + 1);
      out.lookup_paths.emplace_back(token.text.substr(0, dot), tail.substr(0, tail.find('.')));
    }
  }
  if (expect_module || out.modules.empty()) return std::nullopt;
  if (limited) out.rows = std::max(most, limit);
  return out;
}

}  // namespace tollgate::catalogue::zoho

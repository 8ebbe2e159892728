// Writing JSON (RFC 8259) by appending to a string. For replies, log lines and exports: no tree is built.
//   std::string out; JsonWriter json(out);
//   json.object([&] { json.field("user", "ann"); json.field("used", 3); json.field_array("objects", [&] { ... }); });
// Strings: control characters, quote and backslash are escaped; bytes that are not UTF-8 become U+FFFD, so the
// output is always valid JSON whatever bytes a client sent.
#pragma once
#include <concepts>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "metering/base/append.h"

namespace tollgate {

// Appends text as a JSON string with its quotes: at most 6 bytes a byte.
void append_json_string(std::string& out, std::string_view text);
void put_json_string(Appender& to, std::string_view text);
// The same to a place with room for 2 + 6 bytes a byte; the end of what was written. For lines written in one go.
char* write_json_string(char* to, std::string_view text);

// `out` has its new size once the outermost value is complete, and must not be touched before.
class JsonWriter {
 public:
  explicit JsonWriter(std::string& out) : out_(out) {}

  template <class Body>
  void object(Body&& body) {
    nest('{', body, '}');
  }
  template <class Body>
  void array(Body&& body) {
    nest('[', body, ']');
  }
  void key(std::string_view name) {
    separate();
    put_json_string(*to_, name);
    to_->text(":");
    first_ = true;
  }
  // A literal is written as it stands: it must need no escapes.
  template <std::size_t N>
  void key(const char (&name)[N]) {
    plain_key({name, N - 1});
  }
  void value(std::string_view text) {
    item([&] { put_json_string(*to_, text); });
  }
  void value(const char* text) { value(std::string_view(text)); }
  void value(bool yes) { raw(yes ? "true" : "false"); }
  void value(std::integral auto number) {
    item([&] { to_->decimal(number); });
  }
  void value(double number);  // shortest form that reads back the same; not finite becomes null
  void null() { raw("null"); }
  void raw(std::string_view json) {  // json: already valid JSON
    item([&] { to_->text(json); });
  }
  void members(std::string_view json) {  // one or more, already valid JSON, without the braces
    separate();
    to_->text(json);
  }
  // Name: a literal or a string_view, as for key().
  template <class Name, class T>
  void field(const Name& name, const T& v) {
    key(name);
    value(v);
  }
  template <class Name, class Body>
  void field_object(const Name& name, Body&& body) {
    key(name);
    object(body);
  }
  template <class Name, class Body>
  void field_array(const Name& name, Body&& body) {
    key(name);
    array(body);
  }

 private:
  template <class Write>
  void item(Write&& write) {
    if (depth_++ == 0) to_.emplace(out_);
    separate();
    write();
    if (--depth_ == 0) to_.reset();
  }
  template <class Body>
  void nest(char open, Body&& body, char close) {
    item([&] {
      to_->text({&open, 1});
      first_ = true;
      body();
      to_->text({&close, 1});
      first_ = false;
    });
  }
  void plain_key(std::string_view name);
  void separate() {
    if (!first_) to_->text(",");
    first_ = false;
  }

  std::string& out_;
  std::optional<Appender> to_;  // within a value
  unsigned depth_ = 0;
  bool first_ = true;
};

}  // namespace tollgate

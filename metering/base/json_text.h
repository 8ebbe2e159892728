// Writing JSON (RFC 8259) by appending to a string. For replies, log lines and exports: no tree is built.
//   std::string out; JsonWriter json(out);
//   json.object([&] { json.field("user", "ann"); json.field("used", 3); json.field_array("objects", [&] { ... }); });
// Strings: control characters, quote and backslash are escaped; bytes that are not UTF-8 become U+FFFD, so the
// output is always valid JSON whatever bytes a client sent.
#pragma once
#include <concepts>
#include <cstdint>
#include <string>
#include <string_view>

namespace tollgate {

// Appends text as a JSON string with its quotes: at most 6 bytes a byte.
void append_json_string(std::string& out, std::string_view text);
// The same to a place with room for 2 + 6 bytes a byte; the end of what was written. For lines written in one go.
char* write_json_string(char* to, std::string_view text);

class JsonWriter {
 public:
  explicit JsonWriter(std::string& out) : out_(out) {}

  template <class Body>
  void object(Body&& body) {
    open('{');
    body();
    close('}');
  }
  template <class Body>
  void array(Body&& body) {
    open('[');
    body();
    close(']');
  }
  void key(std::string_view name) {
    separate();
    append_json_string(out_, name);
    out_.push_back(':');
    first_ = true;
  }
  void value(std::string_view text) {
    separate();
    append_json_string(out_, text);
  }
  void value(const char* text) { value(std::string_view(text)); }
  void value(bool yes) { raw(yes ? "true" : "false"); }
  void value(std::integral auto number) { raw(std::to_string(number)); }
  void value(double number);  // shortest form that reads back the same; not finite becomes null
  void null() { raw("null"); }
  void raw(std::string_view json) {  // json: already valid JSON
    separate();
    out_.append(json);
  }
  template <class T>
  void field(std::string_view name, const T& v) {
    key(name);
    value(v);
  }
  template <class Body>
  void field_object(std::string_view name, Body&& body) {
    key(name);
    object(body);
  }
  template <class Body>
  void field_array(std::string_view name, Body&& body) {
    key(name);
    array(body);
  }

 private:
  void separate() {
    if (!first_) out_.push_back(',');
    first_ = false;
  }
  void open(char c) {
    separate();
    out_.push_back(c);
    first_ = true;
  }
  void close(char c) {
    out_.push_back(c);
    first_ = false;
  }
  std::string& out_;
  bool first_ = true;
};

}  // namespace tollgate

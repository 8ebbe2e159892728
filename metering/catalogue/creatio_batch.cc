// OData $batch (OASIS OData 4.01 part 1, 11.7; JSON format 19; MS-ODATA 2.2.7.6): every part is one operation.
//
// The upstream executes the parts that IT sees, so a part that two readers could see differently makes the whole
// batch a rejection: repeated keys, mixed newlines, encodings, parts that address another API, nested batches.
#include "metering/base/ascii.h"
#include "metering/catalogue/creatio.h"
#include "metering/catalogue/multipart.h"

namespace tollgate::catalogue::creatio {
namespace {

class BatchReader {
 public:
  BatchReader(Call& call, bool version3) : call_(call), version3_(version3) {}

  const char* read_json(std::string_view body);
  const char* read_multipart(std::string_view body, std::string_view boundary, bool nested);

 private:
  struct Item {
    Method method;
    std::string_view url;
    std::string_view body;
  };
  const char* read_json_part(JsonElement element);
  const char* read_mime_part(const Part& part, std::string_view newline, bool nested);
  const char* read_http_part(std::string_view text, std::string_view newline, std::string_view content_id);
  const char* add(const Item& item);
  void remember(std::string_view id);

  Call& call_;
  bool version3_;
  std::uint32_t part_ = 0;
  References references_;
  std::string object_;  // of the part added last
};

const char* BatchReader::add(const Item& item) {
  if (part_ >= call_.options.batch_parts_max) return "the batch has too many operations";
  if (item.method == Method::other || item.method == Method::options) return "a part has an unknown method";
  auto url = resolve_url(item.url, version3_);
  if (!url || trim(item.url).empty())
    return "the address of a part cannot be read or is not an OData address";
  Resource resource{(*url)->path, (*url)->first, item.method,  (*url)->version3,
                    part_,        true,          &references_, item.body};
  ResourceReading reading = read_resource(call_.schema, resource, call_.result.uses);
  if (reading.error) return reading.error;
  object_ = reading.metadata ? std::string() : reading.object;
  ++part_;
  return nullptr;
}

void BatchReader::remember(std::string_view id) {
  if (id.empty() || object_.empty()) return;
  auto [it, fresh] = references_.try_emplace(std::string(id), Reference{object_, false});
  if (!fresh && it->second.object != object_) it->second.ambiguous = true;
}

const char* BatchReader::read_json(std::string_view body) {
  JsonDocument document;
  auto root = document.parse(body);
  auto object = root ? as_object(*root) : std::nullopt;
  if (!object) return "the batch is not a JSON object";
  Member requests = member(*object, "requests");
  auto list = requests.array();
  if (requests.repeated || !list) return "the batch needs one list `requests`";
  for (JsonElement element : *list)
    if (const char* error = read_json_part(element)) return error;
  return nullptr;
}

const char* BatchReader::read_json_part(JsonElement element) {
  auto object = as_object(element);
  if (!object) return "a part of the batch is not an object";
  Member method = member(*object, "method"), url = member(*object, "url"), id = member(*object, "id"),
         headers = member(*object, "headers"), body = member(*object, "body");
  if (method.repeated || url.repeated || id.repeated || headers.repeated || body.repeated)
    return "a part of the batch repeats a key";
  auto method_text = method.text(), url_text = url.text();
  if (!method_text || !url_text) return "a part of the batch lacks `method` or `url`";
  std::vector<HeaderField> fields;
  if (headers && !headers.value->is_null()) {
    auto header_object = headers.object();
    if (!header_object) return "the headers of a part are not an object";
    for (auto field : *header_object)
      if (auto value = as_text(field.value)) fields.push_back({field.key, *value});
  }
  auto effective = effective_method(*method_text, fields);
  if (!effective) return "the method override headers of a part contradict it";
  if (const char* error = add({*effective, *url_text, body.text().value_or("")})) return error;
  if (auto id_text = id.text()) remember(*id_text);
  return nullptr;
}

const char* BatchReader::read_multipart(std::string_view body, std::string_view boundary, bool nested) {
  auto multipart = split_multipart(body, boundary);
  if (!multipart) return "the multipart body cannot be cut into parts in one way only";
  for (const Part& part : multipart->parts)
    if (const char* error = read_mime_part(part, multipart->newline, nested)) return error;
  return nullptr;
}

const char* BatchReader::read_mime_part(const Part& part, std::string_view newline, bool nested) {
  FieldMatch type = find_field(part.headers, "Content-Type"),
             coding = find_field(part.headers, "Content-Transfer-Encoding"),
             id = find_field(part.headers, "Content-ID");
  if (type.malformed || type.count != 1 || coding.count > 1 || id.count > 1)
    return "a part of the batch has malformed headers";
  if (coding.count == 1 && !equals_ignore_case(coding.value, "binary") &&
      !equals_ignore_case(coding.value, "8bit") && !equals_ignore_case(coding.value, "7bit"))
    return "a part of the batch has an unknown Content-Transfer-Encoding";
  MediaType media = parse_media_type(type.value);
  if (!media.well_formed) return "a part of the batch has a malformed Content-Type";
  if (media.essence == "application/http") return read_http_part(part.body, newline, id.value);
  if (media.essence != "multipart/mixed" || media.boundary.empty())
    return "a part of the batch is no HTTP request";
  if (nested) return "a change set cannot contain another";
  return read_multipart(part.body, media.boundary, true);
}

bool is_http_version(std::string_view text) {
  return text.size() == 8 && text.starts_with("HTTP/") && is_digit(text[5]) && text[6] == '.' &&
         is_digit(text[7]);
}

const char* BatchReader::read_http_part(std::string_view text, std::string_view newline,
                                        std::string_view content_id) {
  // Empty lines before a request line are ignored (RFC 9112 section 2.2).
  while (text.starts_with(newline)) text.remove_prefix(newline.size());
  auto head = split_head(text, newline);
  if (!head || head->lines.empty()) return "a part of the batch is no HTTP request";
  std::size_t end = std::min(head->lines.find('\n'), head->lines.size());
  std::string_view line = head->lines.substr(0, end);
  std::string_view lines = head->lines.substr(std::min(end + 1, head->lines.size()));
  if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
  std::size_t first = line.find(' '), last = line.rfind(' ');
  if (first == line.npos || first == 0 || last <= first || !is_http_version(line.substr(last + 1)))
    return "a part of the batch has a malformed request line";
  std::string_view url = line.substr(first + 1, last - first - 1);
  // Spaces occur in filters of careless clients; in the path they would end the address for other readers.
  if (url.substr(0, url.find('?')).find_first_of(" \t") != url.npos || url.empty())
    return "a part of the batch has a malformed request line";
  std::vector<HeaderField> fields;
  for (std::string_view name : {"X-HTTP-Method", "X-HTTP-Method-Override", "X-Method-Override"}) {
    FieldMatch match = find_field(lines, name);
    if (match.malformed || match.count > 1) return "a part of the batch has malformed headers";
    if (match.count == 1) fields.push_back({name, match.value});
  }
  FieldMatch id = find_field(lines, "Content-ID");
  if (find_field(lines, "Transfer-Encoding").count > 0) return "a part of the batch has a transfer coding";
  FieldMatch coding = find_field(lines, "Content-Encoding");
  if (coding.count > 0 && !equals_ignore_case(coding.value, "identity"))
    return "a part of the batch is compressed";
  auto effective = effective_method(line.substr(0, first), fields);
  if (!effective) return "the method override headers of a part contradict it";
  if (const char* error = add({*effective, url, head->rest})) return error;
  remember(content_id);
  if (id.count == 1 && id.value != content_id) remember(id.value);
  return nullptr;
}

}  // namespace

bool classify_batch(Call& call, bool version3) {
  bool multipart = call.media.essence == "multipart/mixed";
  if (!multipart && (!call.media.is_json() || call.media.essence.empty()))
    return call.reject_media("a batch is application/json or multipart/mixed");
  if (multipart && call.media.boundary.empty()) return call.reject("a multipart batch needs a boundary");
  if (!call.body_ready()) return true;
  BatchReader reader(call, version3);
  const char* error = multipart ? reader.read_multipart(call.request.body, call.media.boundary, false)
                                : reader.read_json(call.request.body);
  if (error) return call.reject(error);
  return call.done(Kind::objects);
}

}  // namespace tollgate::catalogue::creatio

#include "metering/catalogue/classifier.h"

#include "metering/base/ascii.h"
#include "metering/base/check.h"
#include "metering/catalogue/dialect.h"

namespace tollgate::catalogue {

Method parse_method(std::string_view token) {
  struct Entry {
    std::string_view token;
    Method method;
  };
  static constexpr Entry kMethods[] = {{"GET", Method::get},       {"POST", Method::post},
                                       {"PATCH", Method::patch},   {"PUT", Method::put},
                                       {"DELETE", Method::remove}, {"HEAD", Method::head},
                                       {"MERGE", Method::merge},   {"OPTIONS", Method::options}};
  for (const Entry& entry : kMethods)
    if (equals_ignore_case(entry.token, token)) return entry.method;
  return Method::other;
}

bool is_identifier(std::string_view text) {
  if (text.empty() || text.size() > 128 || is_digit(text.front())) return false;
  for (char c : text)
    if (!is_alpha(c) && !is_digit(c) && c != '_') return false;
  return true;
}

HeaderMatch find_header(std::span<const HeaderField> headers, std::string_view name) {
  HeaderMatch match;
  for (const HeaderField& field : headers) {
    if (!equals_ignore_case(field.name, name)) continue;
    if (match.present && trim(field.value) != match.value) match.conflict = true;
    match.present = true;
    match.value = trim(field.value);
  }
  return match;
}

std::optional<Method> effective_method(std::string_view method, std::span<const HeaderField> headers) {
  Method sent = parse_method(method);
  std::optional<Method> named;
  for (const HeaderField& field : headers) {
    if (field.name.size() < 13 || ascii_lower(field.name.front()) != 'x') continue;
    if (!equals_ignore_case(field.name, "X-HTTP-Method") &&
        !equals_ignore_case(field.name, "X-HTTP-Method-Override") &&
        !equals_ignore_case(field.name, "X-Method-Override"))
      continue;
    Method value = parse_method(trim(field.value));
    if (value == Method::other || (named && *named != value)) return std::nullopt;
    named = value;
  }
  if (!named || *named == sent) return sent;
  // A server that ignores the field would write what was judged as a read (MS-ODATA 2.2.5.8 names only writes).
  if (sent != Method::post || reads(*named) || *named == Method::options) return std::nullopt;
  return named;
}

bool Call::body_ready() {
  for (const HeaderField& field : request.headers) {
    if (!equals_ignore_case(field.name, "Content-Encoding")) continue;
    std::string_view coding = trim(field.value);
    if (coding.empty() || equals_ignore_case(coding, "identity")) continue;
    reject_media("the body is compressed and cannot be inspected; send it without Content-Encoding");
    return false;
  }
  if (!media.well_formed) {
    reject("Content-Type is malformed");
    return false;
  }
  if (!media.readable_charset()) {
    reject_media("the charset of the body cannot be inspected; use UTF-8");
    return false;
  }
  if (head_only) {
    need = BodyNeed::whole;
    return false;
  }
  return true;
}

bool Call::reject(std::string_view detail) {
  result = Classification{};
  result.kind = Kind::reject;
  result.reject_detail = detail;
  return true;
}

bool Call::reject_media(std::string_view detail) {
  reject(detail);
  result.unsupported_media = true;
  return true;
}

void Call::use(std::string_view object, Operation operation, Via via) {
  result.uses.push_back({std::string(object), operation, via, 0, false});
}

struct Classifier::Impl {
  Options options;
  std::shared_ptr<const Schema> schema;

  Classification run(const Request& request, bool head_only, BodyNeed& need, Classification memory) const;
};

Classification Classifier::Impl::run(const Request& request, bool head_only, BodyNeed& need,
                                     Classification memory) const {
  Classification rejection;
  rejection.kind = Kind::reject;
  if (request.target == "*") return Classification{};
  std::optional<Result<NormalPath>> normal;
  if (request.path == nullptr && !normal.emplace(normalise(request.target))) {
    rejection.reject_detail = std::move(normal->error().message);
    return rejection;
  }
  const NormalPath& path = request.path != nullptr ? *request.path : **normal;
  std::optional<Method> method = effective_method(request.method, request.headers);
  if (!method) {
    rejection.reject_detail = "the method override headers contradict the request";
    return rejection;
  }
  HeaderMatch content_type = find_header(request.headers, "Content-Type");
  MediaType media = parse_media_type(content_type.value);
  if (content_type.conflict) media.well_formed = false;
  // A preflight or capability question touches nothing; only whose address it is matters.
  bool asks_options = *method == Method::options;
  if (asks_options) method = Method::get;
  memory.clear();
  Call call{.request = request,
            .schema = *schema,
            .options = options,
            .path = path,
            .method = *method,
            .media = media,
            .head_only = head_only || asks_options,
            .result = std::move(memory)};
  for (Dialect dialect : options.dialects) {
    bool known = false;
    switch (dialect) {
      case Dialect::creatio:
        known = classify_creatio(call);
        break;
      case Dialect::zoho:
        known = classify_zoho(call);
        break;
      case Dialect::cherwell:
        known = classify_cherwell(call);
        break;
      case Dialect::rest:
        known = classify_rest(call);
        break;
    }
    if (!known) continue;
    if (asks_options) {
      Classification metadata;
      metadata.kind = Kind::metadata;
      return metadata;
    }
    need = call.need;
    return std::move(call.result);
  }
  return Classification{};
}

Classifier::Classifier(Options options, std::shared_ptr<const Schema> schema)
    : impl_(std::make_unique<Impl>(std::move(options), std::move(schema))) {
  CHECK(impl_->schema != nullptr, "a classifier needs a schema, even an empty one");
}
Classifier::~Classifier() = default;
Classifier::Classifier(Classifier&&) noexcept = default;
Classifier& Classifier::operator=(Classifier&&) noexcept = default;

BodyNeed Classifier::body_need(const Request& request) const {
  BodyNeed need = BodyNeed::none;
  impl_->run(request, true, need, {});
  return need;
}

Classification Classifier::classify(const Request& request, Classification memory) const {
  BodyNeed need = BodyNeed::none;
  return impl_->run(request, false, need, std::move(memory));
}

}  // namespace tollgate::catalogue

#include "metering/catalogue/creatio.h"

#include "metering/base/ascii.h"

namespace tollgate::catalogue {
namespace creatio {
namespace {

bool is_number(std::string_view text) {
  for (char c : text)
    if (!is_digit(c)) return false;
  return !text.empty();
}

std::optional<Api> api_of(std::string_view word) {
  if (word == "odata") return Api::odata4;
  if (word == "dataservice") return Api::data_service;
  if (word == "servicemodel" || word == "rest") return Api::service;
  if (word == "soap") return Api::soap;
  return std::nullopt;
}

// Pages, scripts and small services outside the data APIs (CreatioDemoProject, academy node/1390).
std::optional<Api> page_of(std::string_view word) {
  struct Entry {
    std::string_view word;
    Api api;
  };
  static constexpr Entry kPages[] = {
      {"conf", Api::asset},      {"core", Api::asset},        {"nui", Api::asset},
      {"login", Api::asset},     {"ssplogin", Api::asset},    {"ssp", Api::asset},
      {"msg", Api::asset},       {"img", Api::other},         {"imageapiservice", Api::other},
      {"api", Api::other},       {"ping", Api::metadata},     {"connect", Api::authentication},
      {"resources", Api::asset}, {".well-known", Api::other},
  };
  for (const Entry& entry : kPages)
    if (entry.word == word) return entry.api;
  return std::nullopt;
}

bool classify_img(Call& call, std::size_t first) {
  const NormalPath& path = call.path;
  if (first >= path.size() || path.segment_lower(first) != "entity") return call.done(Kind::asset);
  std::size_t at = first + 1;
  if (at < path.size() && path.segment_lower(at) == "hash") ++at;
  if (at >= path.size() || !is_identifier(path.segment(at)))
    return call.reject("the image address names no object");
  call.use(call.spell(path.segment(at)), reads(call.method) ? Operation::read : Operation::edit,
           Via::service);
  return call.done(Kind::objects);
}

bool classify_other(Call& call, std::size_t first) {
  const NormalPath& path = call.path;
  std::string_view word = path.segment_lower(first - 1);
  std::string_view next = first < path.size() ? path.segment_lower(first) : std::string_view();
  if (word == "img") return classify_img(call, first);
  if (word == "imageapiservice") {
    if (next != "upload") return call.done(Kind::unknown);
    call.use(call.spell("SysImage"), Operation::create, Via::service);
    return call.done(Kind::objects);
  }
  if (word == ".well-known") {
    if (next != "openid-configuration") return false;
    return call.done(Kind::authentication);
  }
  if (next == "healthcheck") return call.done(Kind::metadata);
  // /api/... is shared with other systems: leave it to a dialect that may know it.
  return call.options.dialects.size() > 1 ? false : call.done(Kind::unknown);
}

// Behind a directory that is called like a folder of files here, another system may have its API: /core/api/v1/cases.
bool is_root_of_another(const Call& call, std::size_t first) {
  if (call.options.dialects.size() < 2 || first >= call.path.size()) return false;
  std::string_view word = call.path.segment_lower(first);
  return word == "api" || word == "crm" || word == "cherwellapi" || word == "trebuchet.webapi";
}

}  // namespace

bool is_api_word(std::string_view word) {
  char lower[12];  // servicemodel
  if (word.size() > sizeof lower) return false;
  to_lower(word, lower);
  return api_of({lower, word.size()}).has_value();
}

// An API word counts at any depth, behind whatever virtual directory, since overlooking one would open a hole. Only
// below a folder of files it must follow that folder at once or a workspace number: /0/conf/content/rest/x.js is a
// script, /core/0/odata/Case may be a deployment in the directory "core".
std::optional<Root> find_root(const NormalPath& path) {
  std::optional<Root> page;
  bool files = false;  // page is a folder of scripts, pages or pictures
  for (std::size_t i = 0; i < path.size(); ++i) {
    std::string_view word = path.segment_lower(i);
    bool after_number = i > 0 && (is_number(path.segment(i - 1)) || path.segment_lower(i - 1) == "ssp");
    if (auto api = api_of(word)) {
      if (files && !after_number && i != page->first) continue;
      if (*api == Api::service && i + 1 < path.size() &&
          (path.segment_lower(i + 1) == "entitydataservice.svc" ||
           path.segment_lower(i + 1) == "entitydataservice"))
        return Root{Api::odata3, i + 2};
      return Root{*api, i + 1};
    }
    if (!page && (i <= 1 || after_number))
      if (auto kind = page_of(word)) {
        page = Root{*kind, i + 1};
        files = *kind == Api::asset || word == "img";
      }
  }
  return page;
}

}  // namespace creatio

bool classify_creatio(Call& call) {
  using creatio::Api;
  auto root = creatio::find_root(call.path);
  if (!root) return false;
  switch (root->api) {
    case Api::odata4:
    case Api::odata3:
      return creatio::classify_odata(call, *root);
    case Api::data_service:
      return creatio::classify_data_service(call, root->first);
    case Api::service:
      return creatio::classify_service(call, root->first);
    case Api::soap:
      return call.done(Kind::unknown);
    case Api::asset:
      return creatio::is_root_of_another(call, root->first) ? false : call.done(Kind::asset);
    case Api::metadata:
      return call.done(Kind::metadata);
    case Api::authentication:
      return call.done(Kind::authentication);
    case Api::other:
      return creatio::classify_other(call, root->first);
  }
  return false;
}

}  // namespace tollgate::catalogue

// From a request to what it touches. Pure and thread-safe after construction; no I/O.
//
//   Classifier classifier(dialects, schema, options);
//   switch (classifier.body_need(request)) ...       // from the head alone: is the body needed?
//   Classification c = classifier.classify(request); // request.body filled when it was needed
#pragma once
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "metering/catalogue/classification.h"
#include "metering/catalogue/credits.h"
#include "metering/catalogue/schema.h"
#include "metering/catalogue/url.h"

namespace tollgate::catalogue {

struct HeaderField {
  std::string_view name, value;
};

// A view of one request; the bytes belong to the caller.
struct Request {
  std::string_view method;  // as sent: tokens are case-sensitive (RFC 9110 section 9.1)
  std::string_view target;  // origin-form: path and query, percent-encoded as sent
  std::span<const HeaderField>
      headers;            // for Content-Type, X-HTTP-Method(-Override), Content-Range, Upgrade, ...
  std::string_view body;  // decoded of transfer coding; empty when not (yet) known
  const NormalPath* path = nullptr;  // normalise(target), where the caller has it already
};

enum class BodyNeed : std::uint8_t {
  none,   // decided by the head
  whole,  // classify() needs the entire body in Request::body; if it cannot be had, refuse with 413
};

enum class Dialect : std::uint8_t { creatio, zoho, cherwell, rest };

struct Options {
  std::vector<Dialect> dialects;  // tried in order; the first that knows the address decides
  // A batch with more operations is rejected. Creatio itself stops at 100 (academy, data_services/odata); every
  // operation up to this bound is reported and counted, so the bound only protects memory.
  std::size_t batch_parts_max = 1000;
  // Classification::credits by this; the bodies that it depends on are needed then. Zoho alone has credits.
  std::optional<CreditTable> credits = std::nullopt;
};

class Classifier {
 public:
  Classifier(Options options, std::shared_ptr<const Schema> schema);
  ~Classifier();
  Classifier(Classifier&&) noexcept;
  Classifier& operator=(Classifier&&) noexcept;

  BodyNeed body_need(const Request& request) const;
  // memory: an earlier answer, whose memory is used again.
  Classification classify(const Request& request, Classification memory = {}) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tollgate::catalogue

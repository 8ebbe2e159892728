// Writes down a call_begin that a test has made; its number is set, as Stream::begin_call does.
#pragma once
#include "metering/journal/journal.h"

namespace tollgate::journal {

inline std::optional<OpenCall> begin_call(Stream& stream, usage::CallBegin& begin) {
  usage::CallBeginView view{.call = begin.call,
                            .time_ms = begin.time_ms,
                            .request_id = begin.request_id,
                            .user = begin.user,
                            .tenant = begin.tenant,
                            .organization = begin.organization,
                            .client_address = begin.client_address,
                            .method = begin.method,
                            .path = begin.path,
                            .kind = begin.kind,
                            .staff = begin.staff,
                            .operations = {},
                            .charged = {}};
  for (const auto& one : begin.operations)
    view.operations.push_back({one.object, one.operation, one.section, one.product, one.count});
  for (const auto& one : begin.charged) view.charged.push_back({one.subject_key, one.field, one.units});
  const auto open = stream.begin_call(view);
  begin.call = view.call;
  return open;
}

}  // namespace tollgate::journal

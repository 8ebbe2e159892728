// Failures of the world: what could not be done, whose fault it is, whether trying again can help.
//
// Three kinds of trouble, three tools:
//   our own bug              CHECK (check.h): prints and aborts
//   the world failed         Result<T> = std::expected<T, Error>: this file
//   policy said no           not an error: a decision with a Reason (reason.h)
// No exception leaves a file of ours; a library's exceptions are caught where it is called.
#pragma once
#include <expected>
#include <string>
#include <utility>

namespace tollgate {

// Who has to act for the failure to go away.
enum class Origin { client, upstream, store, config, self };

struct Error {
  std::string message;  // one sentence for a person: what, where, what to do
  Origin origin = Origin::self;
  bool may_retry = false;  // the same call may succeed later without anybody acting
};

template <class T>
using Result = std::expected<T, Error>;

inline std::unexpected<Error> fail(Origin origin, std::string message, bool may_retry = false) {
  return std::unexpected(Error{std::move(message), origin, may_retry});
}

}  // namespace tollgate

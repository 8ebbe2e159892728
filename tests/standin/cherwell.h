// The stand-in's Cherwell CSM: /CherwellAPI/...
//
//   POST token                              password "secret"; a refresh token works once; site_name in query or form
//   DELETE api/V1/logout                    ends the token and its refresh token
//   POST api/V1/savebusinessobject          creates or edits; the creator is the requester: CustomerRecID is "cust-" and his name
//   GET api/V1/getbusinessobject/...        DELETE api/V1/deletebusinessobject/...   POST api/V1/getbusinessobjectbatch
//   POST api/V1/getsearchresults            all records of busObId
//   .../api/V1/runonestepaction...          with X-Standin-New-Token: a new token in place of the one that was sent
//   anything else below api/V1              200 {}
// Without a token that is alive: 401. Replies say whose it was: X-Standin-User: ann@it. X-Standin-Lifetime on a request for
// a token: its expires_in. X-Standin-Grant on it: a log-in that comes to nothing, although the token in the reply is alive:
// refused (400), broken (500), nameless (200 without username), tokenless (200 without a token). Thread-safe.
#pragma once
#include <boost/json.hpp>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "tests/standin/message.h"

namespace tollgate::standin {

class Cherwell {
 public:
  Reply answer(const Request& request, std::string_view rest);  // rest: behind /CherwellAPI/
  void close_all();

 private:
  struct Owner {
    std::string user, site, refresh;
  };
  struct Record {
    std::string object, id, public_id;
    boost::json::object fields;
  };
  Reply token(const Request& request);
  std::string open(const Owner& owner);
  Reply serve(const Request& request, const std::string& token, const std::vector<std::string>& words);
  std::optional<boost::json::object> save(const boost::json::object& body, const Owner& owner);
  Reply run(const Request& request, const std::string& token);
  Record* find(const std::string& object, const std::string& id, const std::string& public_id);

  std::mutex mutex_;
  std::map<std::string, Owner> tokens_, refreshes_;
  std::vector<Record> records_;
  std::uint64_t made_ = 0;
};

}  // namespace tollgate::standin

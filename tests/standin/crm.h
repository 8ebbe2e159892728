// What the stand-in CRM answers: request in, reply out. No socket here.
//
//   /0/ServiceModel/AuthService.svc/Login  a session's cookies, Code 0 (or 1 when the password is not "secret")
//   {root}/rest/MainMenuService/Logout     ends it; /_standin/expire ends all
//   {root}/odata/...                       OData 4: list, get, $count, POST, PATCH, DELETE, $metadata, $batch
//   (JSON, multipart) {root}/ServiceModel/EntityDataService.svc/...   OData 3: Atom or JSON verbose; MERGE
//   {root}/DataService/json/{SyncReply|reply}/...   Select, Insert, Update, Delete, BatchQuery
//   {root}/rest/{Service}/{Method}, {root}/ServiceModel/{Service}.svc/{Method}   success
//   /crm/v{N}/{module}[/{id}|/actions/..|/upsert], /crm/v{N}/coql      Zoho
//   /CherwellAPI/...   cherwell.h
//   .../{module}[/{id}]/actions/portal_invite, /crm/v{N}/settings/portals/p/user_type/{type}/users[/{id}/actions/change_status]
//                                          its portal users; X-Standin-Portal: refuse (400) | error (200, and says error)
//   /health /echo /upload /bytes/{n}[?chunked=1] /status/{n} /early /trailers /items[/id]
//   GET {root}/odata/SysAdminUnit, SysLicUser   its users and licences, for who has logged in (directory.cc)
//   /introspect /connect/token /crm/v8/users?type=CurrentUser {root}/rest/UsrWhoAmI/...   whose a token or session is (identity.cc)
// {root} is "", "/0" or "/0/ssp"; addresses compare without case.
// A request with a session's cookie is answered with X-Standin-User, one with a cookie of no session with 401; without
// any it is nobody's business here. X-Standin-Renew: a new cookie comes with the reply.
#pragma once
#include <map>
#include <mutex>

#include "tests/standin/cherwell.h"
#include "tests/standin/entity_store.h"
#include "tests/standin/message.h"

namespace tollgate::standin {

std::string cookie_of(const Request& request, std::string_view wanted);  // "": there is none

class Sessions {
 public:
  std::string open(const std::string& user);  // the cookie: another one each time
  std::optional<std::string> user_of(const std::string& cookie) const;
  void close(const std::string& cookie);
  void close_all();

 private:
  mutable std::mutex mutex_;
  std::map<std::string, std::string> users_;
  std::uint32_t made_ = 0;
};

// Users of Zoho's portal, by the id of their record; as many as one likes. Thread-safe.
class PortalUsers {
 public:
  // nullopt: no address of portal users. rest: what follows /crm/v{N}/.
  std::optional<Reply> answer(const Request& request, std::string_view rest);

 private:
  Reply list() const;

  mutable std::mutex mutex_;
  std::map<std::string, bool> active_;
};

class Crm {
 public:
  // Thread-safe.
  Reply answer(const Request& request);
  void expire() {  // every session
    sessions_.close_all();
    cherwell_.close_all();
  }

 private:
  Reply serve(const Request& request);
  Reply login(const Request& request);
  Reply odata(const Request& request, std::string_view rest);
  Reply directory(const Request& request, const std::string& entity);  // SysAdminUnit, SysLicUser
  EntityStore::Record directory_settings()
      const;  // how it is to misbehave: the latest row of StandinDirectory
  Reply odata_record(const Request& request, const std::string& entity, const std::string& id,
                     std::string_view tail);
  Reply odata_collection(const Request& request, const std::string& entity, std::string_view tail);
  Reply odata_batch(const Request& request, std::string_view root);
  Reply json_batch(const Request& request, std::string_view root);
  Reply multipart_batch(const Request& request, std::string_view root, const std::string& content_type);
  Reply odata3(const Request& request, std::string_view rest);
  Reply data_service(const Request& request, std::string_view method);
  std::string data_query(std::string_view type, const boost::json::object& query,
                         std::vector<std::string>& touched);
  Reply service(const Request& request, std::string_view name);
  Reply zoho(const Request& request, std::string_view rest);
  std::optional<Reply> identity(const Request& request, std::string_view path);  // of the root

  EntityStore store_;
  PortalUsers portal_users_;
  Sessions sessions_;
  Cherwell cherwell_;
};

}  // namespace tollgate::standin

// What the stand-in CRM answers: request in, reply out. No socket here.
//
//   /0/ServiceModel/AuthService.svc/Login  cookies, Code 0 (or 1 when the password is not "secret")
//   {root}/odata/...                       OData 4: list, get, $count, POST, PATCH, DELETE, $metadata, $batch
//   (JSON, multipart) {root}/ServiceModel/EntityDataService.svc/...   OData 3: Atom or JSON verbose; MERGE
//   {root}/DataService/json/{SyncReply|reply}/...   Select, Insert, Update, Delete, BatchQuery
//   {root}/rest/{Service}/{Method}, {root}/ServiceModel/{Service}.svc/{Method}   success
//   /crm/v{N}/{module}[/{id}|/actions/..|/upsert], /crm/v{N}/coql      Zoho
//   /health /echo /upload /bytes/{n}[?chunked=1] /status/{n} /early /trailers /items[/id]
// {root} is "", "/0" or "/0/ssp"; addresses compare without case.
#pragma once
#include "tests/standin/entity_store.h"
#include "tests/standin/message.h"

namespace tollgate::standin {

class Crm {
 public:
  // Thread-safe.
  Reply answer(const Request& request);

 private:
  Reply odata(const Request& request, std::string_view rest);
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

  EntityStore store_;
};

}  // namespace tollgate::standin

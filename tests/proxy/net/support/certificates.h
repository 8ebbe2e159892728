// Throw-away certificates for tests, made with OpenSSL: a certificate authority and leaves signed by it.
#pragma once
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

typedef struct ssl_ctx_st SSL_CTX;

namespace tollgate::net::test {

// A folder that goes with the object.
class Folder {
 public:
  Folder();
  ~Folder();
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  std::string path(const std::string& name) const { return (root_ / name).string(); }

 private:
  std::filesystem::path root_;
};

// NAME.pem and NAME.key in the folder. names: subject alternative names, "DNS:a.example" or "IP:127.0.0.1".
// The authority is ca.pem / ca.key, made with the first certificate.
void make_certificate(const Folder& folder, const std::string& name, const std::vector<std::string>& names,
                      long valid_seconds = 3'600);

struct FreeContext {
  void operator()(SSL_CTX* context) const;
};
using Context = std::unique_ptr<SSL_CTX, FreeContext>;
// Of a server that shows this certificate of the folder.
Context server_context(const Folder& folder, const std::string& certificate);

}  // namespace tollgate::net::test

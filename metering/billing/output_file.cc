#include "metering/billing/output_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <openssl/evp.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "metering/base/check.h"

namespace tollgate::billing {
namespace {

constexpr std::size_t kBufferBytes = 256 * 1024;

std::string directory_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

}  // namespace

struct Sha256::State {
  EVP_MD_CTX* context = EVP_MD_CTX_new();
  ~State() { EVP_MD_CTX_free(context); }
};

Sha256::Sha256() : state_(std::make_unique<State>()) {
  CHECK(EVP_DigestInit_ex(state_->context, EVP_sha256(), nullptr) == 1, "SHA-256 is not there");
}
Sha256::~Sha256() = default;

void Sha256::add(std::string_view bytes) {
  CHECK(EVP_DigestUpdate(state_->context, bytes.data(), bytes.size()) == 1, "SHA-256 failed");
}

std::string Sha256::hex() {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  CHECK(EVP_DigestFinal_ex(state_->context, digest, &size) == 1, "SHA-256 failed");
  std::string out;
  for (unsigned i = 0; i < size; ++i) out += fmt::format("{:02x}", digest[i]);
  return out;
}

Result<std::unique_ptr<OutputFile>> OutputFile::create(const std::string& path) {
  // Another export of the same period may run: each has its own, and the last rename wins with the same bytes.
  std::string temporary = fmt::format("{}.{}.part", path, ::getpid());
  const int descriptor = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
  if (descriptor < 0) return fail(Origin::self, fmt::format("{}: {}", temporary, std::strerror(errno)));
  return std::unique_ptr<OutputFile>(new OutputFile(path, std::move(temporary), descriptor));
}

OutputFile::~OutputFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
  if (!committed_) ::unlink(temporary_.c_str());
}

void OutputFile::write(std::string_view bytes) {
  bytes_ += bytes.size();
  buffer_ += bytes;
  if (buffer_.size() >= kBufferBytes) flush();
}

void OutputFile::flush() {
  std::string_view rest = buffer_;
  while (failed_ == 0 && !rest.empty()) {
    const ssize_t written = ::write(descriptor_, rest.data(), rest.size());
    if (written >= 0)
      rest.remove_prefix(static_cast<std::size_t>(written));
    else if (errno != EINTR)
      failed_ = errno;
  }
  buffer_.clear();
}

Error OutputFile::error(std::string_view what) const {
  return {fmt::format("{}: {}: {}", path_, what, std::strerror(failed_)), Origin::self, failed_ == ENOSPC};
}

Result<void> OutputFile::commit() {
  flush();
  if (failed_ != 0) return std::unexpected(error("cannot be written"));
  auto step = [&](int code) {
    if (code != 0) failed_ = errno;
    return code == 0;
  };
  if (!step(::fsync(descriptor_))) return std::unexpected(error("cannot be made durable"));
  const int descriptor = std::exchange(descriptor_, -1);
  if (!step(::close(descriptor))) return std::unexpected(error("cannot be closed"));
  if (!step(::rename(temporary_.c_str(), path_.c_str()))) return std::unexpected(error("cannot be renamed"));
  committed_ = true;
  const int directory = ::open(directory_of(path_).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (directory < 0 || ::fsync(directory) != 0) failed_ = errno;
  if (directory >= 0) ::close(directory);
  if (failed_ != 0) return std::unexpected(error("its directory cannot be made durable"));
  return {};
}

}  // namespace tollgate::billing

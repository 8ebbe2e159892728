// The single examinations of `tollgate doctor`.
#include <arpa/inet.h>
#include <fmt/format.h>
#include <signal.h>
#include <simdjson.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <future>
#include <thread>

#include "config/values.h"
#include "metering/base/ascii.h"
#include "metering/redis/probe.h"
#include "proxy/cli/admin_client.h"
#include "proxy/cli/assembly.h"
#include "proxy/cli/certificates.h"
#include "proxy/cli/doctor.h"
#include "proxy/cli/user_directory.h"
#include "proxy/net/directory_sync.h"
#include "proxy/net/event_loop.h"
#include "proxy/net/lookup_service.h"

namespace tollgate::cli {
namespace {

using Level = Symptom::Level;
namespace fs = std::filesystem;

constexpr auto kExpiryNotice = std::chrono::hours(24 * 30);

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

// errno of binding the address, or 0. Nothing listens on it afterwards.
int try_bind(const std::string& address) {
  std::size_t colon = address.rfind(':');
  std::string host = address.substr(0, colon);
  auto port = static_cast<std::uint16_t>(parse_decimal(address.substr(colon + 1)).value_or(0));
  sockaddr_storage storage{};
  socklen_t size = 0;
  if (host.starts_with('[')) {
    auto* v6 = reinterpret_cast<sockaddr_in6*>(&storage);
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(port);
    if (::inet_pton(AF_INET6, host.substr(1, host.size() - 2).c_str(), &v6->sin6_addr) != 1) return EINVAL;
    size = sizeof(sockaddr_in6);
  } else {
    auto* v4 = reinterpret_cast<sockaddr_in*>(&storage);
    v4->sin_family = AF_INET;
    v4->sin_port = htons(port);
    if (::inet_pton(AF_INET, host.c_str(), &v4->sin_addr) != 1) return EINVAL;
    size = sizeof(sockaddr_in);
  }
  Descriptor socket(::socket(storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (socket.get() < 0) return errno;
  int yes = 1;  // a port in TIME_WAIT counts as free, as it does for the proxy
  ::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&storage), size) != 0) return errno;
  return 0;
}

// The program as the shell would find it, or "".
std::string find_program(const std::string& name) {
  if (name.find('/') != std::string::npos) return ::access(name.c_str(), X_OK) == 0 ? name : "";
  const char* path = std::getenv("PATH");
  std::string_view rest = path == nullptr ? "/usr/bin:/bin" : path;
  while (!rest.empty()) {
    std::size_t colon = rest.find(':');
    std::string candidate = fmt::format("{}/{}", rest.substr(0, colon), name);
    if (::access(candidate.c_str(), X_OK) == 0) return candidate;
    if (colon == std::string_view::npos) break;
    rest.remove_prefix(colon + 1);
  }
  return "";
}

std::vector<Symptom> probe_symptoms(const redis::ConnectionOptions& connection) {
  auto now = [] {
    return UnixTime(
        std::chrono::duration_cast<Duration>(std::chrono::system_clock::now().time_since_epoch()));
  };
  redis::ProbeReport report = redis::probe(connection, {.timeout = std::chrono::seconds(2), .now = now});
  std::vector<Symptom> symptoms;
  if (report.reachable)
    symptoms.push_back(
        {Level::ok, "store",
         fmt::format("{} at {}, round trip {} us", report.server, connection.url.describe(),
                     std::chrono::duration_cast<std::chrono::microseconds>(report.round_trip).count()),
         ""});
  for (const redis::Finding& finding : report.findings)
    symptoms.push_back(
        {static_cast<Level>(finding.level), "store", finding.subject + ": " + finding.text, finding.advice});
  if (!report.reachable && symptoms.empty())
    symptoms.push_back({Level::problem, "store",
                        fmt::format("Redis at {} cannot be reached", connection.url.describe()),
                        "start it, or correct store.url"});
  return symptoms;
}

// Whose a credential is that nobody has: "nobody's" is the good answer.
Symptom examine_lookup(const std::shared_ptr<const identity::LookupSource>& source, std::string credential) {
  auto table = std::make_shared<identity::LookupTable>(std::string(32, 'd'), 1'000);
  std::string why;
  std::promise<bool> answered;
  net::LookupService service([&](bool good, const std::string& line) {
    if (!good) why = line;
  });
  const UnixTime now(
      std::chrono::duration_cast<Duration>(std::chrono::system_clock::now().time_since_epoch()));
  service.ask(source, table, table->key_of(identity::lookup_identity(*source), credential),
              std::move(credential), now,
              [&](const auto& verdict) { answered.set_value(verdict != nullptr); });
  if (answered.get_future().get())
    return {Level::ok, "identity", fmt::format("{}: {} answers", source->name, source->url), ""};
  return {Level::problem, "identity", why,
          "calls that depend on it get 503: correct the address, the account or the way there"};
}

// As who uses libcurl on his own thread has to.
void block_broken_pipes() {
  sigset_t pipe;
  sigemptyset(&pipe);
  sigaddset(&pipe, SIGPIPE);
  pthread_sigmask(SIG_BLOCK, &pipe, nullptr);
}

Symptom examine_user_sync(const net::DirectorySource& source) {
  block_broken_pipes();
  const auto seen = net::try_directory(source);
  if (seen)
    return {Level::ok, "identity",
            fmt::format("identity.directory.sync: {}: {} on the first page", source.url, *seen), ""};
  using Kind = identity::SyncFailure::Kind;
  const std::string_view advice =
      seen.error().kind == Kind::log_in ? "correct user and password_file, authorization_file, or oauth"
      : seen.error().kind == Kind::unreachable ? "correct url or ca_file, or the way there"
                                               : "give the account the right to read these entities "
                                                 "(CanUseODataService), or correct url and names";
  return {
      Level::problem, "identity",
      fmt::format("identity.directory.sync ({}): {}", identity::name(seen.error().kind), seen.error().text),
      std::string(advice)};
}

}  // namespace

std::vector<Symptom> examine_descriptors(const config::Settings& settings, std::uint64_t allowed) {
  std::uint64_t workers =
      settings.workers > 0 ? settings.workers : std::max(1U, std::thread::hardware_concurrency());
  std::uint64_t upstream = 0;
  for (const config::Upstream& u : settings.upstreams) upstream += u.max_connections;
  // Each worker also holds its loop, listeners and connection to the store; the process its logs and journal.
  std::uint64_t needed = workers * (settings.limits.max_connections + upstream + 16) + 64;
  std::string text =
      fmt::format("{} file descriptors allowed, {} needed if every connection that is configured is used",
                  allowed, needed);
  if (allowed >= needed) return {{Level::ok, "files", std::move(text), ""}};
  return {{Level::warning, "files", std::move(text),
           "raise the limit (ulimit -n, LimitNOFILE= of systemd), or lower limits.max_connections"}};
}

std::vector<Symptom> examine_secret_files(const config::Settings& settings) {
  std::vector<std::string> files{settings.admin.token_file, settings.store.password_file};
  for (const config::JwtIssuer& jwt : settings.identity.jwt) files.push_back(jwt.secret_file);
  files.push_back(settings.identity.api_keys.file);  // hashes, but also who may call
  files.push_back(settings.identity.api_keys.secret_file);
  files.push_back(settings.identity.introspection.client_secret_file);
  files.push_back(settings.identity.sessions.lookup.authorization_file);
  files.push_back(settings.identity.directory_sync.password_file);
  files.push_back(settings.identity.directory_sync.authorization_file);
  files.push_back(settings.identity.directory_sync.oauth.client_secret_file);
  files.push_back(settings.licensing.creatio.lookup.password_file);
  files.push_back(settings.licensing.creatio.lookup.authorization_file);
  files.push_back(settings.licensing.creatio.lookup.oauth.client_secret_file);
  files.push_back(settings.licensing.cherwell.lookup.password_file);
  for (const config::Upstream& upstream : settings.upstreams) files.push_back(upstream.tls.key_file);
  for (const config::Listener& listener : settings.listeners) {
    if (!listener.tls) continue;
    files.push_back(listener.tls->key_file);
    for (const auto& certificate : listener.tls->certificates) files.push_back(certificate.key_file);
  }
  std::vector<Symptom> symptoms;
  std::size_t seen = 0;
  for (const std::string& file : files) {
    struct stat info{};
    if (file.empty() || ::stat(file.c_str(), &info) != 0) continue;
    ++seen;
    if ((info.st_mode & (S_IROTH | S_IWOTH)) != 0)
      symptoms.push_back({Level::warning, "files",
                          fmt::format("every user of this machine can read {}", file),
                          fmt::format("chmod o= {}", file)});
  }
  if (symptoms.empty())
    symptoms.push_back({Level::ok, "files", fmt::format("{} secret files are private", seen), ""});
  return symptoms;
}

std::vector<Symptom> examine_ports(const config::Settings& settings) {
  std::vector<std::string> addresses;
  for (const config::Listener& listener : settings.listeners) addresses.push_back(listener.address);
  if (!settings.admin.address.empty()) addresses.push_back(settings.admin.address);
  std::vector<Symptom> symptoms;
  for (const std::string& address : addresses) {
    int failure = try_bind(address);
    if (failure == 0)
      symptoms.push_back({Level::ok, "ports", address + " is free", ""});
    else if (failure == EADDRINUSE)
      symptoms.push_back({Level::warning, "ports", address + " is in use",
                          "nothing to do if it is a running tollgate; else choose another port"});
    else if (failure == EACCES)
      symptoms.push_back({Level::problem, "ports", address + " may not be opened by this user",
                          "use a port above 1023, or grant CAP_NET_BIND_SERVICE"});
    else
      symptoms.push_back({Level::problem, "ports",
                          fmt::format("{} cannot be opened: {}", address, std::strerror(failure)),
                          "use an address of this machine"});
  }
  return symptoms;
}

std::vector<Symptom> examine_folders(const config::Settings& settings) {
  std::vector<std::string> folders{settings.journal.directory};
  if (!settings.access_log.file.empty() && settings.access_log.file != "-")
    folders.push_back(fs::path(settings.access_log.file).parent_path().string());
  std::vector<Symptom> symptoms;
  for (const std::string& folder : folders) {
    fs::path existing = folder;
    std::error_code failure;
    while (!fs::exists(existing, failure) && existing.has_relative_path()) existing = existing.parent_path();
    if (::access(existing.c_str(), W_OK | X_OK) == 0)
      symptoms.push_back({Level::ok, "files",
                          folder + (existing == fs::path(folder) ? " is writable" : " can be made"), ""});
    else
      symptoms.push_back({Level::problem, "files",
                          fmt::format("{} cannot be written: {}", folder, std::strerror(errno)),
                          "give the proxy's user the right to write there"});
    if (fs::space_info space = fs::space(existing, failure); !failure && space.available < (256ULL << 20))
      symptoms.push_back({Level::warning, "files",
                          fmt::format("{} has only {} MiB left", folder, space.available >> 20),
                          "make room: usage that cannot be written is not billed"});
  }
  return symptoms;
}

std::vector<Symptom> examine_certificates(const config::LoadedConfig& loaded, UnixTime now) {
  std::vector<Symptom> symptoms;
  for (const config::Diagnostic& d : check_certificates(loaded, now))
    if (d.severity == config::Severity::error)
      symptoms.push_back({Level::problem, "certificates", config::to_string(d), "put the right file there"});
  for (const NamedCertificate& certificate : own_certificates(loaded)) {
    auto days = std::chrono::duration_cast<std::chrono::hours>(certificate.expires_at - now).count() / 24;
    if (certificate.expires_at <= now)
      symptoms.push_back({Level::problem, "certificates", certificate.file + " has expired",
                          "renew it, then reload (SIGHUP)"});
    else if (certificate.expires_at - now < kExpiryNotice)
      symptoms.push_back({Level::warning, "certificates",
                          fmt::format("{} expires in {} days", certificate.file, days),
                          "renew it, then reload (SIGHUP)"});
    else
      symptoms.push_back({Level::ok, "certificates",
                          fmt::format("{} is valid for {} more days", certificate.file, days), ""});
  }
  if (symptoms.empty()) symptoms.push_back({Level::ok, "certificates", "none configured", ""});
  return symptoms;
}

std::vector<Symptom> examine_store(const config::LoadedConfig& loaded) {
  const config::Store& store = loaded.settings.store;
  auto url = redis::parse_store_url(store.url);
  if (!url) return {{Level::problem, "store", url.error().message, "correct store.url"}};
  std::vector<Symptom> symptoms;
  if (url->kind == redis::StoreUrl::Kind::embedded) {
    std::string program = find_program(store.redis_server);
    if (program.empty())
      return {{Level::problem, "store",
               fmt::format("there is no program {} for the embedded Redis", store.redis_server),
               "install redis-server, or name it with store.redis_server"}};
    symptoms.push_back({Level::ok, "store", "embedded Redis: " + program, ""});
    std::string socket = url->directory + "/redis.sock";
    std::error_code failure;
    if (!fs::exists(socket, failure)) {
      symptoms.push_back({Level::ok, "store", "it is not running: tollgate starts it", ""});
      return symptoms;
    }
    url->kind = redis::StoreUrl::Kind::unix_socket;
    url->path = socket;
  }
  auto connection = store_connection(store, *url, loaded);
  if (!connection)
    return {{Level::problem, "store", connection.error().message, "correct the store section"}};
  for (Symptom& symptom : probe_symptoms(*connection)) symptoms.push_back(std::move(symptom));
  return symptoms;
}

std::vector<Symptom> examine_identity(const config::LoadedConfig& loaded) {
  std::vector<Symptom> symptoms;
  for (const auto& [source, credential] : {std::pair{token_lookup(loaded), "tollgate-doctor"},
                                           std::pair{session_lookup(loaded), ".ASPXAUTH=tollgate-doctor"}})
    if (source != nullptr) symptoms.push_back(examine_lookup(source, credential));
  const net::DirectorySource directory = directory_source(loaded);
  if (!directory.url.empty()) symptoms.push_back(examine_user_sync(directory));
  return symptoms;
}

std::vector<Symptom> examine_licences(const config::LoadedConfig& loaded) {
  const auto rulebook = load_rulebook(loaded);
  if (!rulebook)
    return {{Level::problem, "licences", rulebook.error().message, "correct the licensing section"}};
  std::vector<Symptom> symptoms;
  for (const std::string_view section : licence::sections_left_to_crm(*rulebook))
    symptoms.push_back(
        {Level::ok, "licences",
         fmt::format("{}: that users reach their own organization's records only is left to the CRM",
                     section),
         ""});
  const OwnerLookup lookup = owner_lookup(loaded, *rulebook, nullptr);
  if (lookup.source == nullptr) return symptoms;
  block_broken_pipes();
  const auto seen = lookup.source->examine(net::EventLoop::now() + 2 * lookup.timeout);
  if (seen)
    symptoms.push_back(
        {Level::ok, "licences", fmt::format("{}: {}: {}", lookup.name, lookup.source->url(), *seen), ""});
  else
    symptoms.push_back(
        {Level::problem, "licences", fmt::format("{}: {}", lookup.name, seen.error()),
         "records count as somebody else's without an answer: correct the address or the account, or give "
         "it the right to read them"});
  return symptoms;
}

std::vector<Symptom> examine_upstreams(std::string_view upstreams) {
  simdjson::dom::parser parser;
  simdjson::dom::array servers;
  if (parser.parse(simdjson::padded_string(upstreams)).get(servers) != simdjson::SUCCESS)
    return {{Level::problem, "upstreams", "the running proxy's answer cannot be read",
             "is it another version of tollgate?"}};
  std::vector<Symptom> symptoms;
  for (const simdjson::dom::element one : servers) {
    auto text = [&](const char* key) {
      std::string_view value;
      return one[key].get(value) == simdjson::SUCCESS ? value : std::string_view();
    };
    auto number = [&](const char* key) {
      std::uint64_t value = 0;
      return one[key].get(value) == simdjson::SUCCESS ? value : 0;
    };
    auto is = [&](const char* key) {
      bool value = false;
      return one[key].get(value) == simdjson::SUCCESS && value;
    };
    Symptom symptom{Level::ok, "upstreams",
                    fmt::format("{} {}: {} calls at it, {} idle connections, {} requests, {} failures",
                                text("upstream"), text("server"), number("in_flight"), number("idle"),
                                number("requests"), number("failures")),
                    ""};
    if (const std::uint64_t waiting = number("waiting"); waiting > 0) {
      symptom.level = Level::warning;
      symptom.text += fmt::format("; {} requests wait for a connection", waiting);
      symptom.advice = "it answers slowly, or upstreams.*.max_connections is too low";
    }
    if (!is("healthy")) {
      symptom.level = Level::warning;
      symptom.text += is("down")          ? "; its health checks fail"
                      : is("unreachable") ? "; it cannot be reached"
                                          : "; it is left out for failing";
      symptom.advice = "look at that server and at the way to it; the log says what failed";
    }
    symptoms.push_back(std::move(symptom));
  }
  return symptoms;
}

std::vector<Symptom> examine_running_proxy(const config::LoadedConfig& loaded) {
  const config::Admin& admin = loaded.settings.admin;
  if (admin.address.empty() || admin.token_file.empty())
    return {
        {Level::ok, "upstreams", "not asked for: they are seen with admin.address and admin.token_file", ""}};
  const AdminEndpoint endpoint{admin_url(admin.address),
                               std::string(config::secret_of_file(loaded.file_texts.at(admin.token_file)))};
  const auto reply = ask_admin(endpoint, "GET", "/api/v1/upstreams");
  if (!reply) return {{Level::ok, "upstreams", "no proxy runs with this configuration", ""}};
  if (reply->status != 200)
    return {{Level::warning, "upstreams", fmt::format("the admin port answered {}", reply->status),
             "what listens at admin.address is another version, or has another token"}};
  return examine_upstreams(reply->body);
}

}  // namespace tollgate::cli

#include <sys/resource.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "proxy/telemetry/metrics.h"

namespace tollgate::telemetry {
namespace {

// Fields of /proc/self/stat after the name in parentheses; [0] is field 3 of proc(5).
std::vector<std::string> stat_fields() {
  std::ifstream in("/proc/self/stat");
  std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  std::vector<std::string> out;
  if (auto end = text.rfind(')'); end != std::string::npos) {
    std::istringstream fields(text.substr(end + 1));
    for (std::string field; fields >> field;) out.push_back(field);
  }
  return out;
}

double boot_time() {
  std::ifstream in("/proc/stat");
  for (std::string line; std::getline(in, line);)
    if (line.starts_with("btime ")) return std::stod(line.substr(6));
  return 0;
}

double open_files() {
  std::error_code error;
  double count = 0;
  for (auto it = std::filesystem::directory_iterator("/proc/self/fd", error);
       !error && it != std::filesystem::directory_iterator(); it.increment(error))
    ++count;
  return count > 0 ? count - 1 : 0;  // the listing itself holds one open
}

}  // namespace

std::vector<Family> process_metrics() {
  using Type = Family::Type;
  const auto fields = stat_fields();
  auto field = [&](std::size_t i) {
    return i < fields.size() ? std::strtod(fields[i].c_str(), nullptr) : 0.0;
  };
  const auto ticks = static_cast<double>(sysconf(_SC_CLK_TCK));
  const auto page = static_cast<double>(sysconf(_SC_PAGESIZE));
  rlimit files{};
  getrlimit(RLIMIT_NOFILE, &files);
  static const double boot = boot_time();
  auto one = [](std::string name, std::string help, Type type, double value) {
    return Family{.name = std::move(name),
                  .help = std::move(help),
                  .type = type,
                  .samples = {{.labels = {}, .value = value}}};
  };
  return {
      one("process_cpu_seconds_total", "User and system CPU time.", Type::counter,
          (field(11) + field(12)) / ticks),
      one("process_resident_memory_bytes", "Resident memory.", Type::gauge, field(21) * page),
      one("process_virtual_memory_bytes", "Virtual memory.", Type::gauge, field(20)),
      one("process_start_time_seconds", "Start, seconds since 1970.", Type::gauge, boot + field(19) / ticks),
      one("process_open_fds", "Open file descriptors.", Type::gauge, open_files()),
      one("process_max_fds", "Limit of open file descriptors.", Type::gauge,
          static_cast<double>(files.rlim_cur)),
      one("process_threads", "Threads.", Type::gauge, field(17)),
  };
}

}  // namespace tollgate::telemetry

#include "proxy/net/overload.h"

#include <unistd.h>

#include <fstream>
#include <string>

namespace tollgate::net {

std::uint64_t private_memory() {
  std::ifstream file("/proc/self/statm");
  std::uint64_t size = 0, resident = 0, shared = 0;
  if (!(file >> size >> resident >> shared)) return 0;
  return (resident - std::min(shared, resident)) * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
}

std::uint64_t memory_allowed() {
  const long pages = ::sysconf(_SC_PHYS_PAGES);
  std::uint64_t allowed =
      pages > 0 ? static_cast<std::uint64_t>(pages) * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE)) : 0;
  // Control groups, version 2: "0::/path" in the list of our own; a limit may stand at any level above.
  std::ifstream groups("/proc/self/cgroup");
  std::string line;
  while (std::getline(groups, line)) {
    if (!line.starts_with("0::/")) continue;
    for (std::string group = line.substr(3);;) {
      std::ifstream file("/sys/fs/cgroup" + group + "/memory.max");
      std::uint64_t limit = 0;
      if (file >> limit && limit > 0) allowed = allowed == 0 ? limit : std::min(allowed, limit);
      const std::size_t slash = group.rfind('/');
      if (slash == std::string::npos || group == "/") break;
      group.resize(std::max<std::size_t>(slash, 1));
    }
  }
  return allowed;
}

}  // namespace tollgate::net

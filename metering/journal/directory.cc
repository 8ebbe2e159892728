#include "metering/journal/directory.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>

namespace tollgate::journal {
namespace {

template <class Number>
bool parse(std::string_view text, Number& number, int base) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number, base);
  return error == std::errc{} && end == text.data() + text.size();
}

std::string_view state_name(Identity::State state) {
  switch (state) {
    case Identity::State::clean:
      return "clean";
    case Identity::State::recovering:
      return "recovering";
    case Identity::State::running:
      break;
  }
  return "running";
}

bool take_field(Identity& identity, std::string_view name, std::string_view value) {
  if (name == "journal") return parse(value, identity.journal, 16);
  if (name == "incarnation") return parse(value, identity.incarnation, 16);
  if (name == "place") return parse(value, identity.place, 10);
  if (name == "boot") identity.boot = value;
  if (name == "state") {
    for (const auto state : {Identity::State::running, Identity::State::clean, Identity::State::recovering})
      if (value == state_name(state)) {
        identity.state = state;
        return true;
      }
    return false;
  }
  return true;  // of a later version that this one can live with
}

}  // namespace

Result<std::optional<Identity>> read_identity(const std::string& directory) {
  const std::string path = directory + "/identity";
  if (::access(path.c_str(), F_OK) != 0 && errno == ENOENT) return std::nullopt;
  auto text = read_text(path);
  if (!text) return std::unexpected(text.error());
  constexpr std::string_view kFirst = "tollgate-journal 1\n";
  std::string_view left = *text;
  if (!left.starts_with(kFirst))
    return fail(Origin::self,
                "journal: " + path + " is not the identity of a journal of this version of Tollgate");
  left.remove_prefix(kFirst.size());
  Identity identity;
  while (!left.empty()) {
    const std::string_view line = left.substr(0, left.find('\n'));
    left.remove_prefix(std::min(left.size(), line.size() + 1));
    const std::size_t space = line.find(' ');
    if (space == std::string_view::npos ||
        !take_field(identity, line.substr(0, space), line.substr(space + 1)))
      return fail(Origin::self, fmt::format("journal: {}: cannot be read: \"{}\"", path, line));
  }
  if (identity.journal == 0 || identity.incarnation == 0)
    return fail(Origin::self, "journal: " + path + " names no journal and incarnation");
  return identity;
}

Result<void> write_identity(const std::string& directory, const Identity& identity) {
  return replace_text(
      directory, "identity",
      fmt::format("tollgate-journal 1\njournal {:08x}\nincarnation {:08x}\nboot {}\nplace {}\nstate {}\n",
                  identity.journal, identity.incarnation, identity.boot, identity.place,
                  state_name(identity.state)));
}

Result<Lock> lock_directory(const std::string& directory) {
  const std::string path = directory + "/lock";
  auto file = open_file(path, O_RDWR | O_CREAT);
  if (!file) return std::unexpected(file.error());
  if (::flock(file->number(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return system_error("lock", path, errno);
    const auto holder = read_text(path);
    std::string who = holder ? holder->substr(0, holder->find('\n')) : "";
    return fail(Origin::config,
                fmt::format("journal: {} is in use by process {}: each Tollgate needs a directory of its own",
                            directory, who.empty() ? "unknown" : who));
  }
  const std::string text = fmt::format("{}\n", ::getpid());
  if (::ftruncate(file->number(), 0) != 0 ||
      ::pwrite(file->number(), text.data(), text.size(), 0) != static_cast<ssize_t>(text.size()))
    return system_error("write", path, errno);
  struct stat status{};
  if (::fstat(file->number(), &status) != 0) return system_error("look at", path, errno);
  Lock lock;
  lock.file = std::move(*file);
  lock.place = static_cast<std::uint64_t>(status.st_ino);
  return lock;
}

Result<void> make_directory(const std::string& directory) {
  if (::mkdir(directory.c_str(), 0700) == 0) {
    const std::size_t slash = directory.rfind('/');
    return sync_directory(slash == std::string::npos ? "." : slash == 0 ? "/" : directory.substr(0, slash));
  }
  if (errno != EEXIST) return system_error("make", directory, errno);
  struct stat status{};
  if (::stat(directory.c_str(), &status) != 0) return system_error("look at", directory, errno);
  if (!S_ISDIR(status.st_mode)) return fail(Origin::config, "journal: " + directory + " is not a directory");
  return {};
}

Result<std::string> read_boot_id() {
  auto text = read_text("/proc/sys/kernel/random/boot_id");
  if (!text) return std::unexpected(text.error());
  while (!text->empty() && text->back() == '\n') text->pop_back();
  return text;
}

}  // namespace tollgate::journal

// What makes a directory one journal: the lock that keeps a second process out, and the identity.
//
//   DIR/identity   text, one "name value" a line, replaced as a whole:
//     tollgate-journal 1            layout version
//     journal 5d1c33a0              names the directory for good (hexadecimal)
//     incarnation 0a77f1e2          of the cells and ops now (hexadecimal)
//     boot 6a3f...                  the boot of the machine in which it was written last
//     place 131077                  inode of DIR/lock: a copy of the directory is another journal
//     state running                 clean: the last process closed it; recovering: a start was cut short that did not
//                                   trust what it found, the next does not either
//
//   DIR/lock       flock for as long as the process lives; holds its process id, for the message to the second one
#pragma once
#include <cstdint>
#include <optional>
#include <string>

#include "metering/base/error.h"
#include "metering/journal/disk.h"

namespace tollgate::journal {

struct Identity {
  enum class State : std::uint8_t { running, clean, recovering };
  std::uint32_t journal = 0, incarnation = 0;
  std::string boot;
  std::uint64_t place = 0;
  State state = State::running;
};

Result<std::optional<Identity>> read_identity(const std::string& directory);  // nullopt: there is none
Result<void> write_identity(const std::string& directory, const Identity& identity);

struct Lock {
  File file;
  std::uint64_t place = 0;
};
Result<Lock> lock_directory(const std::string& directory);

Result<void> make_directory(const std::string& directory);
Result<std::string> read_boot_id();

}  // namespace tollgate::journal

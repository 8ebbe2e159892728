// DIR/cells: the mapped LeaseCells, behind one page of header. Every byte has room on the disk (disk.h says why), so the
// file has 512 bytes an account from the start: 128 MiB for 262 144.
//
//   0  "TGCELL01"   8  u32 layout 1   12  u32 incarnation   16  u64 cells   24  u64 bytes of a cell
//   4096            cells
#pragma once
#include <cstdint>
#include <span>
#include <string>

#include "metering/base/error.h"
#include "metering/journal/disk.h"
#include "metering/quota/lease_cell.h"

namespace tollgate::journal {

class Cells {
 public:
  // There is such a file and it is of this incarnation and layout.
  static bool belongs(const std::string& directory, std::uint32_t incarnation);
  // `anew`: zeroed. Else at least `count` cells; those that are there stay.
  static Result<Cells> open(const std::string& directory, std::uint32_t incarnation, std::size_t count,
                            bool anew, const DiskCalls& calls);
  // For a reader: as they are now.
  static Result<Cells> look(const std::string& directory);

  std::span<quota::LeaseCell> all() const;
  bool sync();  // durable

 private:
  Mapping mapping_;
};

}  // namespace tollgate::journal

// Reader::live: uses that are in the cells only.
#include "metering/journal/cells.h"
#include "metering/journal/journal.h"

namespace tollgate::journal {

Result<std::vector<Reader::LiveUse>> Reader::live() const {
  const auto cells = Cells::look(directory_);
  if (!cells) return std::unexpected(cells.error());
  std::vector<LiveUse> uses;
  for (const quota::LeaseCell& cell : cells->all()) {
    if (!cell.in_use()) continue;
    LiveUse use;
    use.unsettled = cell.unreported();  // the log of ops has the rest
    use.outstanding = cell.outstanding();
    if (use.unsettled == 0 && use.outstanding == 0) continue;
    const std::string_view name = cell.name();
    const std::size_t end = name.find('\n');
    if (end == std::string_view::npos) continue;  // being written this moment
    use.subject_key = name.substr(0, end);
    use.field = name.substr(end + 1);
    use.window = cell.window();
    use.bucket = cell.bucket();
    uses.push_back(std::move(use));
  }
  return uses;
}

}  // namespace tollgate::journal

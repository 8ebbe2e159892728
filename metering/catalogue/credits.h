// What a vendor counts a call as: Zoho's API credits (config/presets/zoho.yaml has the numbers and where they are from). Known
// from the request alone, before it is made.
#pragma once
#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

namespace tollgate::catalogue {

struct CreditTable {
  std::uint32_t call = 1;  // any request of the API that is not below
  // Inserted, updated and upserted records, and records that are tagged, that one credit pays; at least one credit.
  std::uint32_t records_per_credit = 1, tagged_per_credit = 1;
  std::uint32_t convert = 1;                                  // a lead
  std::uint32_t custom_view = 1;                              // records of a custom view (cvid)
  std::uint32_t deleted = 1;                                  // deleted records
  std::uint32_t bulk_read = 1, bulk_write = 1;                // the request that makes the job
  std::uint32_t composite = 1;                                // whatever its parts
  std::vector<std::pair<std::uint32_t, std::uint32_t>> coql;  // rows asked for, up to -> credits; ascending

  std::uint32_t of_rows(std::uint64_t rows) const {
    for (const auto& [up_to, credits] : coql)
      if (rows <= up_to) return credits;
    return coql.empty() ? call : coql.back().second;
  }
  static std::uint32_t of_records(std::uint64_t records, std::uint32_t per_credit) {
    return static_cast<std::uint32_t>(std::max<std::uint64_t>(1, (records + per_credit - 1) / per_credit));
  }
};

}  // namespace tollgate::catalogue

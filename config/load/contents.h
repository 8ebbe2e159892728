// What is inside the files that a configuration names, looked at before the configuration is used: secrets
// long enough, key sets with a usable key, directory and rulebook readable, product names known. Pure.
#pragma once
#include <vector>

#include "config/load/load.h"

namespace tollgate::config {

// Files that could not be read are not in loaded.file_texts and are passed over: they are reported already.
void check_contents(const LoadedConfig& loaded, std::vector<Diagnostic>& diagnostics);

}  // namespace tollgate::config

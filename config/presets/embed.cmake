# tollgate_embed(NAME file): makes generated/embedded_NAME.h with `inline constexpr std::string_view kNAME`, the file's bytes.
# A raw string literal may hold 64 KiB in every compiler; the pieces are joined by the compiler. Re-run when the file changes.
function(tollgate_embed name file)
  set_property(DIRECTORY ${CMAKE_SOURCE_DIR} APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${file})
  file(READ ${file} text)
  string(LENGTH "${text}" size)
  set(pieces "")
  set(at 0)
  while(at LESS size)
    string(SUBSTRING "${text}" ${at} 8000 piece)
    string(APPEND pieces "R\"~~~~(${piece})~~~~\"\n")
    math(EXPR at "${at} + 8000")
  endwhile()
  file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/generated/embedded_${name}.h @ONLY CONTENT
       "#pragma once\n#include <string_view>\nnamespace tollgate::embedded {\ninline constexpr std::string_view k_${name} =\n${pieces};\n}  // namespace tollgate::embedded\n")
endfunction()

file(GLOB embedded_files CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/config/presets/*.yaml ${CMAKE_SOURCE_DIR}/metering/redis/*.lua)
foreach(file ${embedded_files})
  get_filename_component(name ${file} NAME_WE)
  tollgate_embed(${name} ${file})
endforeach()

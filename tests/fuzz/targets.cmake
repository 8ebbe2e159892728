# One line a fuzz target (see tollgate_fuzz in tests/CMakeLists.txt): name, source below tests/fuzz/, rooms.
# The corpus of a target lies in tests/fuzz/corpus/<name>/; every file of it is also a regression test.

# llhttp as a second opinion: C sources of Debian's package node-llhttp, compiled in its strict mode.
if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang" AND NOT CMAKE_C_COMPILER)
  string(REPLACE "clang++" "clang" CMAKE_C_COMPILER "${CMAKE_CXX_COMPILER}")
endif()
enable_language(C)
add_library(llhttp STATIC fuzz/llhttp_interface.c fuzz/llhttp_machine.c)
set_target_properties(llhttp PROPERTIES COMPILE_OPTIONS "-O1;-w")
target_compile_definitions(llhttp PUBLIC LLHTTP_STRICT_MODE=1)
target_include_directories(llhttp SYSTEM PUBLIC /usr/share/include/llhttp PRIVATE /usr/share)
add_library(second_reader STATIC fuzz/second_reader.cc)
target_include_directories(second_reader PRIVATE ${CMAKE_SOURCE_DIR})
target_link_libraries(second_reader PRIVATE llhttp)

tollgate_fuzz(http_request SOURCE http_request_fuzz.cc DEPS proxy_http second_reader)
tollgate_fuzz(http_response SOURCE http_response_fuzz.cc DEPS proxy_http second_reader)
tollgate_fuzz(http_chunked SOURCE http_chunked_fuzz.cc DEPS proxy_http second_reader)
tollgate_fuzz(jwt SOURCE jwt_fuzz.cc DEPS metering_identity)
tollgate_fuzz(catalogue_url SOURCE catalogue_url_fuzz.cc DEPS metering_catalogue)
tollgate_fuzz(catalogue_batch_multipart SOURCE catalogue_batch_multipart_fuzz.cc DEPS metering_catalogue)
tollgate_fuzz(catalogue_batch_json SOURCE catalogue_batch_json_fuzz.cc DEPS metering_catalogue)
tollgate_fuzz(catalogue_data_service SOURCE catalogue_data_service_fuzz.cc DEPS metering_catalogue)
tollgate_fuzz(journal_entry SOURCE journal_entry_fuzz.cc DEPS metering_usage)
tollgate_fuzz(proxy_protocol SOURCE proxy_protocol_fuzz.cc DEPS proxy_net)
tollgate_fuzz(operator_csv SOURCE operator_csv_fuzz.cc DEPS metering_identity)
tollgate_fuzz(session SOURCE session_fuzz.cc DEPS metering_identity)

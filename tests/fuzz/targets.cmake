# One line a fuzz target (see tollgate_fuzz in tests/CMakeLists.txt): name, source below tests/fuzz/, rooms.
# The corpus of a target lies in tests/fuzz/corpus/<name>/; every file of it is also a regression test.
tollgate_fuzz(http_request SOURCE http_request_fuzz.cc DEPS proxy_http)
tollgate_fuzz(http_response SOURCE http_response_fuzz.cc DEPS proxy_http)
tollgate_fuzz(http_chunked SOURCE http_chunked_fuzz.cc DEPS proxy_http)
tollgate_fuzz(jwt SOURCE jwt_fuzz.cc DEPS metering_identity)
tollgate_fuzz(catalogue_url SOURCE catalogue_url_fuzz.cc DEPS metering_catalogue)
tollgate_fuzz(catalogue_batch_multipart SOURCE catalogue_batch_multipart_fuzz.cc DEPS metering_catalogue)
tollgate_fuzz(catalogue_batch_json SOURCE catalogue_batch_json_fuzz.cc DEPS metering_catalogue)
tollgate_fuzz(catalogue_data_service SOURCE catalogue_data_service_fuzz.cc DEPS metering_catalogue)
tollgate_fuzz(journal_entry SOURCE journal_entry_fuzz.cc DEPS metering_usage)

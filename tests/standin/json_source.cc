// Boost.JSON is compiled here, once, in place of linking its library.
#include <boost/json/src.hpp>

# find_package(spacetime CONFIG) with -Dspacetime_DIR="$(spacetime --cmake-dir)"; then link spacetime::spacetime.
get_filename_component(_spacetime "${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)
set(spacetime_VERSION @VERSION@)
if(NOT TARGET spacetime::spacetime)
  add_library(spacetime::spacetime SHARED IMPORTED)
  set_target_properties(spacetime::spacetime PROPERTIES
    IMPORTED_LOCATION "${_spacetime}/lib/libspacetime.so"
    IMPORTED_SONAME libspacetime.so
    INTERFACE_INCLUDE_DIRECTORIES "${_spacetime}/include")
endif()

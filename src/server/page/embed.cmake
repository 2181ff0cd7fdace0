# SPDX-License-Identifier: Apache-2.0
# cmake -DOUT=page.cc -DFOLDER=page -P embed.cmake: the files of the admin page as C++ string constants.
set(text "#include \"server/page.h\"\n\nnamespace beamline::server::page {\n\n")
foreach(entry IN ITEMS kHtml=page.html kCss=page.css kScript=page.js kIcon=page.svg)
  string(REPLACE "=" ";" entry "${entry}")
  list(GET entry 0 name)
  list(GET entry 1 file)
  file(READ ${FOLDER}/${file} content)
  string(APPEND text "const char ${name}[] = R\"~~~(${content})~~~\";\n\n")
endforeach()
file(WRITE ${OUT} "${text}}  // namespace beamline::server::page\n")

// The second object of each library of the sample; see part.cc.
#include <sstream>
#include <string>

#define JOIN2(a, b) a##b
#define JOIN(a, b) JOIN2(a, b)

std::string JOIN(PART, _words)(int count) {
    std::ostringstream out;
    for (int i = 0; i < count; ++i) out << (i ? " " : "") << "word" << i;
    return out.str();
}

// Checks the library PART, prints LINES lines, and leaves an undeclared output where the test runner wants them.
#include <cstdio>
#include <cstdlib>
#include <string>

#define JOIN2(a, b) a##b
#define JOIN(a, b) JOIN2(a, b)
int JOIN(PART, _value)(int);

int main() {
    for (int i = 0; i < LINES; ++i) std::printf("line %d of the test\n", i);
    if (const char* directory = std::getenv("TEST_UNDECLARED_OUTPUTS_DIR")) {
        if (std::FILE* file = std::fopen((std::string(directory) + "/value.txt").c_str(), "w")) {
            std::fprintf(file, "%d\n", JOIN(PART, _value)(3));
            std::fclose(file);
        }
    }
    return JOIN(PART, _value)(0) >= 1 ? 0 : 1;
}

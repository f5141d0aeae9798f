// Prints what the library PART computes.
#include <cstdio>

#define JOIN2(a, b) a##b
#define JOIN(a, b) JOIN2(a, b)
int JOIN(PART, _value)(int);

int main() {
    std::printf("%d\n", JOIN(PART, _value)(8));
    return 0;
}

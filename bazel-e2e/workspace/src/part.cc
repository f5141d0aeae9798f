// One library of the sample. The macro that declares it defines PART (its name) and EACH_DEP (an X-macro over the
// names of the libraries it depends on), so one file makes as many different objects as there are libraries.
#include <map>
#include <numeric>
#include <string>
#include <vector>

#define JOIN2(a, b) a##b
#define JOIN(a, b) JOIN2(a, b)
#define DECLARE(name) int name##_value(int);
EACH_DEP(DECLARE)
std::string JOIN(PART, _words)(int count);

int JOIN(PART, _value)(int depth) {
    std::map<std::string, std::vector<int>> table;
    for (int i = 0; i < depth; ++i) table[JOIN(PART, _words)(i)].push_back(i);
    int sum = 1;
    for (const auto& [key, values] : table) sum += std::accumulate(values.begin(), values.end(), int(key.size()));
#define ADD(name) sum += name##_value(depth);
    EACH_DEP(ADD)
    return sum;
}

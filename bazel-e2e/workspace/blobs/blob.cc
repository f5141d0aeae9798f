// blob SEED BYTES FILE: bytes that look random (no compressor shortens them) and are the same on every machine.
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <string>

int main(int argc, char** argv) {
    if (argc != 4) return 2;
    std::uint64_t state = std::strtoull(argv[1], nullptr, 10) * 2 + 1;
    std::string bytes(std::strtoull(argv[2], nullptr, 10), '\0');
    for (char& byte : bytes) { // xorshift64*
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        byte = char((state * 0x2545F4914F6CDD1DULL) >> 56);
    }
    std::ofstream out(argv[3], std::ios::binary);
    out.write(bytes.data(), std::streamsize(bytes.size()));
    return out.flush() ? 0 : 1;
}

//! What this host is, from `/proc/cpuinfo` given as text.
//!
//! Source of truth: x86-64 psABI micro-architecture levels; containerd/platforms `cpuinfo_linux.go` for arm.

use super::Platform;

/// What level 2 of x86-64 adds, as `/proc/cpuinfo` spells it (`pni` is SSE3).
const LEVEL_2: [&str; 7] = ["pni", "ssse3", "sse4_1", "sse4_2", "popcnt", "cx16", "lahf_lm"];
/// What level 3 adds (`abm` is LZCNT; AVX is listed only where the kernel has switched on XSAVE).
const LEVEL_3: [&str; 9] = ["avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"];
/// What level 4 adds.
const LEVEL_4: [&str; 5] = ["avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"];

/// The platform of a host, by the names Rust or Go use for system and architecture, and the text of its
/// `/proc/cpuinfo` (empty where there is none).
pub fn host_platform(os: &str, architecture: &str, cpuinfo: &str) -> Platform {
    let plain = Platform::new(os, architecture, None);
    match plain.architecture.as_str() {
        "amd64" => match amd64_level(cpuinfo) {
            1 => plain,
            level => Platform { variant: Some(format!("v{level}")), ..plain },
        },
        "arm" | "arm64" => Platform::new(os, &plain.architecture, arm_variant(cpuinfo)),
        _ => plain,
    }
}

/// The x86-64 level, 1 to 4, of the first processor listed.
pub fn amd64_level(cpuinfo: &str) -> u8 {
    let flags: Vec<&str> = field(cpuinfo, "flags").unwrap_or("").split_ascii_whitespace().collect();
    let has = |wanted: &[&str]| wanted.iter().all(|flag| flags.contains(flag));
    let levels = [has(&LEVEL_2), has(&LEVEL_3), has(&LEVEL_4)];
    levels.into_iter().take_while(|reached| *reached).fold(1, |level, _| level + 1)
}

/// The arm variant, `v5` to `v8`, of the first processor listed.
pub fn arm_variant(cpuinfo: &str) -> Option<&'static str> {
    let model = field(cpuinfo, "model name").or_else(|| field(cpuinfo, "Processor")).unwrap_or("");
    Some(match field(cpuinfo, "CPU architecture")?.to_ascii_lowercase().as_str() {
        "8" | "aarch64" => "v8",
        // A Raspberry Pi 1 says 7 while its processor is of generation 6.
        "7" if model.to_ascii_lowercase().starts_with("armv6-compatible") => "v6",
        "7" | "7m" | "?(12)" | "?(13)" | "?(14)" | "?(15)" | "?(16)" | "?(17)" => "v7",
        "6" | "6tej" => "v6",
        "5" | "5t" | "5te" | "5tej" => "v5",
        _ => return None,
    })
}

fn field<'a>(cpuinfo: &'a str, name: &str) -> Option<&'a str> {
    cpuinfo.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amd64_levels_need_every_flag_of_the_levels_below() {
        let all = |sets: &[&[&str]]| format!("processor : 0\nflags\t\t: fpu {}\n", sets.concat().join(" "));
        let table = [
            (String::new(), 1),
            (all(&[]), 1),
            (all(&[&LEVEL_2]), 2),
            (all(&[&LEVEL_2[1..], &LEVEL_3]), 1),
            (all(&[&LEVEL_2, &LEVEL_3]), 3),
            (all(&[&LEVEL_2, &LEVEL_4]), 2),
            (all(&[&LEVEL_2, &LEVEL_3, &LEVEL_4]), 4),
        ];
        for (cpuinfo, level) in table {
            assert_eq!(amd64_level(&cpuinfo), level, "{cpuinfo}");
        }
        assert_eq!(host_platform("linux", "x86_64", &all(&[&LEVEL_2, &LEVEL_3])).to_string(), "linux/amd64/v3");
        assert_eq!(host_platform("linux", "x86_64", "").to_string(), "linux/amd64");
    }

    #[test]
    fn arm_variants_follow_the_processor() {
        let table = [
            ("aarch64", "CPU architecture: 8\n", "linux/arm64"),
            ("aarch64", "", "linux/arm64"),
            ("arm", "CPU architecture: 7\n", "linux/arm/v7"),
            ("arm", "model name : ARMv6-compatible processor rev 7 (v6l)\nCPU architecture: 7\n", "linux/arm/v6"),
            ("arm", "CPU architecture: 5TEJ\n", "linux/arm/v5"),
            ("arm", "CPU architecture: AArch64\n", "linux/arm/v8"),
            ("riscv64", "isa : rv64", "linux/riscv64"),
        ];
        for (architecture, cpuinfo, want) in table {
            assert_eq!(host_platform("linux", architecture, cpuinfo).to_string(), want, "{cpuinfo}");
        }
    }
}

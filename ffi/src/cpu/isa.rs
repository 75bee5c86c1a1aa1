//! Which instruction set the vector code uses: chosen once, lowered by `NANOCHAT_CPU_ISA`.

use std::sync::OnceLock;

/// Instruction sets with code of their own, in rising order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// Plain loops that the compiler vectorises for the baseline.
    Portable,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512 F, BW, VL, DQ.
    Avx512,
    /// AVX-512 with bfloat16 dot products.
    Avx512Bf16,
}

impl Isa {
    pub const ALL: [Isa; 4] = [Isa::Portable, Isa::Avx2, Isa::Avx512, Isa::Avx512Bf16];

    pub fn name(self) -> &'static str {
        match self {
            Isa::Portable => "portable",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
            Isa::Avx512Bf16 => "avx512bf16",
        }
    }
}

/// The best instruction set of this CPU.
pub fn detected() -> Isa {
    #[cfg(target_arch = "x86_64")]
    {
        let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        let avx512 = avx2
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512dq");
        if avx512 && is_x86_feature_detected!("avx512bf16") {
            return Isa::Avx512Bf16;
        }
        if avx512 {
            return Isa::Avx512;
        }
        if avx2 {
            return Isa::Avx2;
        }
    }
    Isa::Portable
}

/// The instruction set to use where none is asked for. Intel's cores issue one dot product of bfloat16 pairs in two cycles and two fp32
/// FMAs in one, so there it is faster to widen (164 against 294 GFLOP/s on two cores of a Xeon, LOG 2026-11-25).
fn preferred() -> Isa {
    #[cfg(target_arch = "x86_64")]
    {
        let vendor = std::arch::x86_64::__cpuid(0);
        if [vendor.ebx, vendor.edx, vendor.ecx] == [b"Genu", b"ineI", b"ntel"].map(|text| u32::from_le_bytes(*text)) {
            return Isa::Avx512;
        }
    }
    Isa::Avx512Bf16
}

/// The instruction set in use: the one that suits this CPU best, or the one that `NANOCHAT_CPU_ISA` names where the CPU has it.
pub fn isa() -> Isa {
    static CHOSEN: OnceLock<Isa> = OnceLock::new();
    *CHOSEN.get_or_init(|| {
        let wanted = std::env::var("NANOCHAT_CPU_ISA").ok();
        let wanted = Isa::ALL.into_iter().find(|isa| Some(isa.name()) == wanted.as_deref());
        wanted.unwrap_or_else(preferred).min(detected())
    })
}

/// Whether the vectors of an instruction set have `vpdpbusd` on this CPU: four products of bytes and their sum in one step.
pub fn has_int8_dot(isa: Isa) -> bool {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => is_x86_feature_detected!("avxvnni"),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::Avx512Bf16 => is_x86_feature_detected!("avx512vnni"),
        _ => false,
    }
}

/// Names of the features that matter here and are present: instruction sets in rising order, then "vnni" where products of bytes have
/// an instruction of their own.
pub fn features() -> Vec<&'static str> {
    let sets = Isa::ALL.into_iter().filter(|&isa| isa <= detected()).map(Isa::name);
    sets.chain(has_int8_dot(detected()).then_some("vnni")).collect()
}

/// Defines a function whose body is compiled once per instruction set and runs the variant that `isa()` names.
///
/// The body must be plain loops over slices; what it calls must be `#[inline(always)]` to be compiled along. `name fused f (..)` makes
/// the body's constant `f` say whether this variant multiplies and adds in one step.
macro_rules! by_isa {
    ($(#[$meta:meta])* $vis:vis fn $name:ident $(fused $fused:ident)? ($($arg:ident: $type:ty),* $(,)?) $(-> $out:ty)? $body:block) => {
        $(#[$meta])*
        $vis fn $name($($arg: $type),*) $(-> $out)? {
            #[inline(always)]
            fn plain$(<const $fused: bool>)?($($arg: $type),*) $(-> $out)? $body
            #[cfg(target_arch = "x86_64")]
            {
                use $crate::cpu::isa::{Isa, isa};
                $(const $fused: bool = true;)?
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($arg: $type),*) $(-> $out)? {
                    plain$(::<$fused>)?($($arg),*)
                }
                #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl,avx512dq")]
                fn avx512($($arg: $type),*) $(-> $out)? {
                    plain$(::<$fused>)?($($arg),*)
                }
                match isa() {
                    Isa::Portable => {}
                    // SAFETY: isa() is at most what the CPU has.
                    Isa::Avx2 => return unsafe { avx2($($arg),*) },
                    // SAFETY: as above.
                    Isa::Avx512 | Isa::Avx512Bf16 => return unsafe { avx512($($arg),*) },
                }
            }
            $(const $fused: bool = false;)?
            plain$(::<$fused>)?($($arg),*)
        }
    };
}
pub(crate) use by_isa;

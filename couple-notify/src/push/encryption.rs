//! Encryption of Web Push messages (RFC 8291) as one record of `aes128gcm` (RFC 8188).

use ring::{
    aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    agreement::{ECDH_P256, EphemeralPrivateKey, UnparsedPublicKey, agree_ephemeral},
    error::Unspecified,
    hkdf::{HKDF_SHA256, KeyType, Salt},
    rand::{SecureRandom as _, SystemRandom},
};

/// Maximum size of the body that every push service accepts (RFC 8030, 7.2).
const MAX_BODY_BYTES: usize = 4096;
/// Size of an uncompressed point on the curve P-256.
const POINT_BYTES: usize = 65;
/// Salt, record size, length of the key id, key id: the public key of the sender (RFC 8188, 2.1).
const HEADER_BYTES: usize = 16 + 4 + 1 + POINT_BYTES;
/// Maximum size of a message: the record also contains a delimiter and the tag of AES-GCM.
pub(super) const MAX_PLAINTEXT_BYTES: usize = MAX_BODY_BYTES - HEADER_BYTES - 1 - 16;

/// Public key and authentication secret of a subscription.
pub(super) struct Recipient<'a> {
    pub(super) key: &'a [u8; POINT_BYTES],
    pub(super) auth: &'a [u8; 16],
}

/// Encrypts a message of at most [`MAX_PLAINTEXT_BYTES`].
///
/// # Errors
/// The key of the recipient is not a point on the curve.
pub(super) fn encrypt(recipient: &Recipient<'_>, plaintext: &[u8]) -> Result<Vec<u8>, Unspecified> {
    // ring accepts its own source of randomness only.
    let random = SystemRandom::new();
    let mut salt = [0; 16];
    random.fill(&mut salt)?;
    let private = EphemeralPrivateKey::generate(&ECDH_P256, &random)?;
    let public = private.compute_public_key()?;
    agree_ephemeral(private, &UnparsedPublicKey::new(&ECDH_P256, recipient.key), |secret| {
        seal(recipient, secret, public.as_ref(), salt, plaintext)
    })?
}

/// Encrypts a message with the secret of the key agreement.
fn seal(
    recipient: &Recipient<'_>,
    secret: &[u8],
    public: &[u8],
    salt: [u8; 16],
    plaintext: &[u8],
) -> Result<Vec<u8>, Unspecified> {
    // RFC 8291, 3.4.
    let info = [b"WebPush: info\0", &recipient.key[..], public];
    let mut input_key = [0; 32];
    derive(recipient.auth, secret, &info, &mut input_key)?;
    // RFC 8188, 2.2 and 2.3: a single record has the number zero, which leaves the nonce as it is.
    let (mut key, mut nonce) = ([0; 16], [0; 12]);
    derive(&salt, &input_key, &[b"Content-Encoding: aes128gcm\0"], &mut key)?;
    derive(&salt, &input_key, &[b"Content-Encoding: nonce\0"], &mut nonce)?;
    let mut record = plaintext.to_vec();
    // Delimiter of the last record (RFC 8188, 2).
    record.push(2);
    LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &key)?).seal_in_place_append_tag(
        Nonce::assume_unique_for_key(nonce),
        Aad::empty(),
        &mut record,
    )?;
    let mut body = Vec::with_capacity(HEADER_BYTES + record.len());
    body.extend_from_slice(&salt);
    body.extend_from_slice(&4096_u32.to_be_bytes());
    body.push(65);
    body.extend_from_slice(public);
    body.append(&mut record);
    Ok(body)
}

/// HKDF-SHA-256 (RFC 5869).
fn derive(salt: &[u8], secret: &[u8], info: &[&[u8]], output: &mut [u8]) -> Result<(), Unspecified> {
    let key = Salt::new(HKDF_SHA256, salt).extract(secret);
    key.expand(info, Length(output.len()))?.fill(output)
}

struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use data_encoding::BASE64URL_NOPAD;

    use super::*;

    fn decode<const N: usize>(text: &str) -> [u8; N] {
        BASE64URL_NOPAD.decode(text.as_bytes()).unwrap().try_into().unwrap()
    }

    /// RFC 8291, 5 and appendix A. ring makes no key from a given number, so the example starts with its shared secret.
    #[test]
    fn message_of_the_rfc_has_the_body_of_the_rfc() {
        let recipient = Recipient {
            key: &decode(
                "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4",
            ),
            auth: &decode("BTBZMqHH6r4Tts7J_aSIgg"),
        };
        let secret: [u8; 32] = decode("kyrL1jIIOHEzg3sM2ZWRHDRB62YACZhhSlknJ672kSs");
        let public: [u8; POINT_BYTES] =
            decode("BP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A8");
        let body = seal(
            &recipient,
            &secret,
            &public,
            decode("DGv6ra1nlYgDCS1FRnbzlw"),
            b"When I grow up, I want to be a watermelon",
        );
        assert_eq!(
            BASE64URL_NOPAD.encode(&body.unwrap()),
            "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl\
             7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN"
        );
    }

    #[test]
    fn longest_message_has_the_longest_body() {
        let recipient = EphemeralPrivateKey::generate(&ECDH_P256, &SystemRandom::new()).unwrap();
        let key: [u8; POINT_BYTES] = recipient.compute_public_key().unwrap().as_ref().try_into().unwrap();
        let recipient = Recipient { key: &key, auth: &[7; 16] };
        let message = [b'x'; MAX_PLAINTEXT_BYTES];
        let bodies = [encrypt(&recipient, &message).unwrap(), encrypt(&recipient, &message).unwrap()];
        assert_eq!(bodies[0].len(), MAX_BODY_BYTES);
        assert_ne!(bodies[0][16..86], bodies[1][16..86], "each message has its own key");
        assert_ne!(bodies[0][..16], bodies[1][..16], "each message has its own salt");
    }

    #[test]
    fn point_that_is_not_on_the_curve_is_refused() {
        for key in [[0; POINT_BYTES], [4; POINT_BYTES]] {
            assert!(encrypt(&Recipient { key: &key, auth: &[7; 16] }, b"hello").is_err());
        }
    }
}
